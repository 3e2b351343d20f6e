"""Memory of a training step on one device, in closed form from the configuration; nothing is allocated.

The most memory is used at one of four moments, and each is written out:

    loss      the forward pass is over; the loss has made the gradients of head and hidden states
    backward  the last block's gradient is computed, and every other block's activations still wait
    end       the first block's is; the gradients of all others have arrived
    update    the optimiser's

P are the parameters, c the bytes of a number in the compute precision (4 or 2), N the positions of a micro-batch.
Masters, gradients and optimiser state are fp32: 4 + 4 + 8 = 16 bytes a parameter with AdamW; what an optimiser
keeps and takes is told by its file, and passed in. The published convention has 16, too (see `zero_bytes`), but
keeps weights and gradients in half precision and a master beside them; here weights are cast where they are
multiplied, and autograd keeps the casts until the backward pass has passed. Counts are of tensors: what an
allocator adds is not known here.
"""

# B batch, T query, D model, H heads, G kv heads, K head dim, F ffn, V vocab, N positions, L layers, W devices

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

from lmwright.errors import ConfigError
from lmwright.model import precision as precisions
from lmwright.model.config import ModelConfig
from lmwright.scaling.flops import block_parameters, count_parameters, matrix_parameters

Parallel = Literal["ddp", "fsdp"]

# What the model and the loss do on each device; tests hold these equal to their constants.
SQUARE_LIMIT = 512  # tokens up to which a CPU keeps the probabilities of attention (model.square)
PIECE = 256  # tokens of neighbouring documents that attend as one piece (model.documents)
CHUNK = {"cpu": 1024, "cuda": 8192}  # positions whose logits exist at once (objectives._cross_entropy)
LOGITS_AT_ONCE = {"cpu": 2**26, "cuda": 2**29}  # and those logits at most

MOST = 2**40  # of anything that is counted; beyond it a number is a slip of the hand


@dataclass(frozen=True, kw_only=True)
class OptimizerBytes:
    """What an optimiser needs for a whole model. state: kept from update to update, and saved. workspace: what an
    update takes at most and gives back. gathered: of what an update makes whole where devices keep parts.
    """

    state: int
    workspace: int = 0
    gathered: int = 0


@dataclass(frozen=True, kw_only=True)
class Run:
    """What decides the memory of a step, beside the model; `device` is the kind of each of the `devices`.

    length: tokens of a sequence. batch_size: sequences of an update, over all devices. optimizer: what it keeps
    and takes. micro_batch_size: sequences that one device computes at once; None is all its part. document:
    tokens of a typical document, where several are packed in a row. ema: the averaged weights are kept. carries:
    a recurrent model's rows keep their state from update to update. devices, parallel: who shares the work, and
    how.
    """

    length: int
    batch_size: int
    optimizer: OptimizerBytes
    micro_batch_size: int | None = None
    precision: str = "bf16"
    recompute: bool = False
    ema: bool = False
    carries: bool = False
    document: int | None = None
    devices: int = 1
    parallel: Parallel = "ddp"
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("length", "batch_size", "micro_batch_size", "document", "devices"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MOST:
                raise ConfigError(f"memory: {name} {value}; must be from 1 to {MOST:,}")
        if self.batch_size < self.devices:
            raise ConfigError(
                f"memory: batch_size {self.batch_size}; is less than the {self.devices} devices, and each needs a "
                "sequence"
            )
        for name, allowed in (("parallel", ("ddp", "fsdp")), ("device", tuple(CHUNK))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"memory: {name} {getattr(self, name)!r}; allowed: {', '.join(allowed)}")

    @property
    def sequences(self) -> int:
        """Sequences that a device computes at once."""
        own = -(-self.batch_size // self.devices)
        return own if self.micro_batch_size is None else min(own, self.micro_batch_size)

    @property
    def micro_batches(self) -> int:
        """Micro-batches that a device computes in an update."""
        return -(-self.batch_size // (self.devices * self.sequences))

    @property
    def bytes(self) -> int:
        """Bytes of a number in the compute precision."""
        return precisions.find(self.precision, "memory: precision").bytes

    @property
    def sharded(self) -> bool:
        """Whether a device keeps a part of the parameters only."""
        return self.parallel == "fsdp" and self.devices > 1


@dataclass(frozen=True, kw_only=True)
class StepMemory:
    """Bytes on one device at one moment of a step.

    weights, gradients, optimizer, average: kept in fp32 (gradients as far as they are there). carried: the state
    of all rows of the update, before it and after. casts: the weights in the compute precision. activations: what
    the backward pass needs. logits: those of a chunk, and the gradients that the loss makes on the way. gathered:
    whole parameters and gradients of sharded blocks. workspace: what a computation takes and gives back.
    """

    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    average: int = 0
    carried: int = 0
    casts: int = 0
    activations: int = 0
    logits: int = 0
    gathered: int = 0
    workspace: int = 0

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(getattr(self, part.name) for part in fields(self))


def training_memory(config: ModelConfig, run: Run) -> StepMemory:
    """Return the moment of a step that takes most. Raises ConfigError for a run that cannot be."""
    return max(moments(config, run).values(), key=lambda moment: moment.total)


def moments(config: ModelConfig, run: Run) -> dict[str, StepMemory]:
    """Return the memory at each moment of a step, by its name.

    kept      4 P weights, the optimiser's state, 4 P for an average; divided by W where sharded; twice the state
              of the device's rows where it is carried on
    loss      kept + activations + hidden states + chunk of logits c C V + gradients of head and hidden states
    backward  kept + activations + gradient of the head + workspace of a block
    end       kept + activations of a block + all gradients
    update    kept + all gradients + workspace of the optimiser, which each device is taken to need whole
    """
    count, size, positions = count_parameters(config), run.bytes, run.sequences * run.length
    parts = run.devices if run.sharded else 1
    kept = StepMemory(
        weights=_part(4 * count.total, parts),
        optimizer=_part(run.optimizer.state, parts),
        average=_part(4 * count.total, parts) if run.ema else 0,
        carried=2 * -(-run.batch_size // run.devices) * state_bytes(config, size) if run.carries else 0,
    )
    gradients = _part(4 * count.total, parts)
    # Under ddp gradients lie in buckets that stay; after a first micro-batch they are there anyway.
    early = gradients if run.micro_batches > 1 or (run.devices > 1 and not run.sharded) else 0
    head = config.vocab_size * config.hidden_size
    hidden = positions * config.hidden_size
    block = activations(config, run)
    layers = (config.num_layers * _block_input(config, run)) if run.recompute else config.num_layers * block
    casts = 0 if size == 4 else size * matrix_parameters(config)
    all_casts = casts * (1 if run.recompute else config.num_layers)
    last_norm = hidden * (4 if config.norm == "rmsnorm" else size) + size * hidden
    if config.layout == "plain":
        last_norm = size * hidden  # no norm; but what goes into the first block comes out of none
    again = block if run.recompute else 0
    root, whole = _gathered(config, run)
    return {
        "loss": replace(
            kept,
            gradients=early,
            casts=(0 if run.recompute else all_casts) + (0 if size == 4 else size * head),
            activations=layers + last_norm,
            logits=_logits(config, run) + 4 * head + size * hidden,
            gathered=root,
        ),
        "backward": replace(
            kept,
            gradients=early,
            casts=all_casts,
            activations=layers + again + last_norm - size * hidden,
            logits=4 * head + size * hidden,
            gathered=root + whole,
            workspace=_workspace(config, run),
        ),
        "end": replace(
            kept,
            gradients=gradients,
            casts=casts,
            activations=(again or block) + (_block_input(config, run) if run.recompute else 0),
            logits=4 * head if config.tie_embeddings else 0,
            gathered=root + whole,
            workspace=_workspace(config, run) + (4 * head if early else 0),
        ),
        "update": replace(kept, gradients=gradients, workspace=run.optimizer.workspace),
    }


def activations(config: ModelConfig, run: Run) -> int:
    """Return the bytes that the backward pass needs of one block.

    N (2 n D + c (2 D + 2 H K + 2 G K + f F)) + attention, f = 2 (gelu) or 4 (swiglu): the norms' inputs (n = 4;
    c for LayerNorm on a CPU), and in the compute precision the inputs of each product and activation. Attention
    keeps c H T bytes a position for its probabilities on a CPU up to SQUARE_LIMIT tokens, else the 4 H of the
    fused kernel's log-sums. Dropout keeps its masks. An LSTM by itself keeps h, and in fp32 gates and cells:
    N D (c + 20).
    """
    size, positions = run.bytes, run.sequences * run.length
    if config.layout == "plain":
        return positions * config.hidden_size * (size + 20 + (2 * size if config.residual_dropout else 0))
    heads, groups = config.num_heads * config.dim_per_head, config.kv_heads * config.dim_per_head
    inner = (4 if config.ffn == "swiglu" else 2) * config.ffn_size
    norm = size if config.norm == "layernorm" and run.device == "cpu" else 4
    if config.norm == "rmsnorm" and run.device != "cpu":
        norm = 8  # written out there, and its steps keep a second copy
    seen, fused = _attended(run)
    if config.attention_dropout:
        scores, groups = (8 + size) * run.length, heads
    elif fused:
        scores, groups = (
            4,
            heads if run.device == "cpu" else groups,
        )  # torch's CPU kernel copies keys for each head
    else:
        scores = size * seen
    row = 2 * norm * config.hidden_size
    row += size * (2 * config.hidden_size + 2 * heads + 2 * groups + inner) + scores * config.num_heads
    if config.residual_dropout:
        row += 2 * size * config.hidden_size
    return positions * row


def state_bytes(config: ModelConfig, size: int) -> int:
    """Return the bytes that an LSTM keeps of a sequence: h in numbers of `size` bytes, and c in fp32."""
    return config.num_layers * config.hidden_size * (size + 4)


def zero_bytes(parameters: float, devices: int, stage: int) -> float:
    """Return bytes a device of weights, gradients and state by the published convention: 2 + 2 + 12 a parameter.

    Mixed precision with Adam: half-precision weights and gradients, and fp32 master, momentum and variance.
    Stage 1 divides the 12 among the devices, stage 2 also the gradients, stage 3 all (Rajbhandari et al. 2020,
    ZeRO, section 3.1 and figure 1).
    """
    shared = {0: 0, 1: 12, 2: 14, 3: 16}[stage]
    return parameters * (16 - shared + shared / devices)


def _attended(run: Run) -> tuple[int, bool]:
    """Return the tokens that attend among themselves, and whether a fused kernel takes them."""
    packed = run.document is not None and run.document < run.length
    seen = min(run.length, max(PIECE, run.document or 0)) if packed else run.length
    return seen, run.device != "cpu" or seen > SQUARE_LIMIT


def _block_input(config: ModelConfig, run: Run) -> int:
    return run.sequences * run.length * config.hidden_size * run.bytes


def _logits(config: ModelConfig, run: Run) -> int:
    """A chunk's logits and, in the compute precision, its products before they are added up."""
    positions, size = run.sequences * run.length, run.bytes
    rows = max(1, min(CHUNK[run.device], positions, LOGITS_AT_ONCE[run.device] // config.vocab_size))
    product = 0 if size == 4 else size * config.vocab_size * config.hidden_size
    return size * rows * (config.vocab_size + 2 * config.hidden_size) + product


def _workspace(config: ModelConfig, run: Run) -> int:
    """Gradients on their way through a block's feed-forward layer: fp32 of the stream, and of its inner width.

    Of an LSTM those of its gates, in both precisions, and four more of its width while they are made.
    """
    if config.layout == "plain":
        return run.sequences * run.length * config.hidden_size * (16 + 16 + 4 * run.bytes)
    inner = (2 if config.ffn == "swiglu" else 1) * config.ffn_size
    return run.sequences * run.length * (4 * config.hidden_size + run.bytes * inner)


def _gathered(config: ModelConfig, run: Run) -> tuple[int, int]:
    """Return the bytes of whole parameters under fsdp: those of the root, and those of blocks at work.

    Embeddings, last norm and head stay whole from the forward to the backward pass. Of the blocks two are: the one
    at work and the one fetched ahead, and the first's gradients, once as they arise and once as they are sent
    (Zhao et al. 2023, section 3.2).
    """
    if not run.sharded:
        return 0, 0
    block = block_parameters(config)
    return 4 * (count_parameters(config).total - config.num_layers * block), 4 * 4 * block


def _part(size: int, parts: int) -> int:
    return -(-size // parts)
