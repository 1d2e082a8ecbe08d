"""A training recipe: the schema of ``configs/train``."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Interval

from detect.config.augment import AugmentConfig, ClassAugmentConfig
from detect.config.base import Listed, Share, Strict, Unit, build
from detect.config.sampling import SamplingConfig, TilesConfig
from detect.config.yaml_files import find_config, load_yaml
from detect.errors import InputError


@dataclass(frozen=True)
class OptimizerConfig(Strict):
    """Optimiser and learning-rate schedule."""

    name: Literal["sgd", "adamw", "muon"] = "sgd"
    """``sgd``: SGD with momentum; ``adamw``: AdamW, with ``momentum`` as beta1; ``muon``: for filters of convolutions
    momentum with orthogonal steps (``detect.training.muon``), AdamW for all else."""
    nesterov: bool = True
    """Of ``sgd``: Nesterov's momentum; false is the plain one, as Darknet's."""
    lr: Annotated[float, Interval(ge=0, le=10)] = 0.01
    """Peak learning rate."""
    final_lr_factor: Share = 0.1
    """Of ``cosine``, ``linear`` and ``poly``: the final rate is ``lr * final_lr_factor``."""
    schedule: Literal["cosine", "linear", "poly", "step", "constant"] = "cosine"
    """Decay from the peak to the end."""
    power: Annotated[float, Interval(ge=0, le=100)] = 4.0
    """Of ``poly``: the rate decays with (1 - progress) ** power."""
    milestones: Listed[Share] = (0.8, 0.9)
    """Of ``step``: shares of the training after which the rate is multiplied by ``step_factor``."""
    step_factor: Share = 0.1
    """Of ``step``: the factor at each milestone."""
    momentum: Annotated[float, Interval(ge=0, le=0.9999)] = 0.937
    """Momentum, or beta1."""
    weight_decay: Share = 0.0005
    """On weights of convolutions and linear layers, not on the k x k filters of ``conv: depthwise``. In detection,
    whose loss is a sum over images, SGD's is scaled by images per update / 64."""
    norm_decay: bool = False
    """Weight decay on norms and biases as well, as of an optimizer that is given all parameters alike."""
    mask_decay: bool = True
    """Weight decay on the latent weights Q of ``conv: bdsc`` as well."""
    warmup_epochs: Annotated[float, Ge(0), Unit("epochs")] = 3.0
    """Length of the linear warm-up, in epochs."""
    warmup_min_steps: Annotated[int, Ge(0), Unit("updates")] = 100
    """Minimum length of the warm-up in updates (small data sets have short epochs)."""
    warmup_momentum: Annotated[float, Interval(ge=0, le=0.9999)] = 0.8
    """Momentum at the start of the warm-up."""
    warmup_bias_lr: Annotated[float, Interval(ge=0, le=10)] = 0.1
    """Learning rate of biases at the start of the warm-up (other rates start at 0)."""
    clip_norm: Annotated[float, Ge(0)] = 10.0
    """Maximum L2 norm of the gradients; 0 does not clip."""


@dataclass(frozen=True)
class LossConfig(Strict):
    """Gains and options of the detection loss (YOLOv5 v6.0). The gains are for YOLOv5's assignment;
    ``detect.losses.terms`` converts them for the others, for YOLOv3's provisionally.
    """

    box: Annotated[float, Ge(0)] = 0.05
    """Gain of the box loss, 1 - IoU."""
    box_iou: Literal["iou", "giou", "diou", "ciou", "mse"] = "ciou"
    """IoU variant of the box loss (``detect.boxes.iou``); ``mse`` is YOLOv3's squared error in its place, of centres in
    cells and logarithms of sides, for assignments to anchors."""
    objectness: Annotated[float, Ge(0)] = 1.0
    """Gain of the objectness loss at 640 px (scaled by (image size / 640) ** 2, but in ``simota`` and ``tal``)."""
    classes: Annotated[float, Ge(0)] = 0.5
    """Gain of the class loss at 80 classes (scaled by classes / 80, but in ``simota`` and ``tal``)."""
    assignment: Literal["auto", "yolov5", "yolov3", "simota", "tal"] = "auto"
    """Positives of an object. ``yolov5``: every anchor whose sides are within ``anchor_ratio``, in up to three cells.
    ``yolov3``: the anchor with the highest IoU, in one cell. ``simota``: the predictions of the 3 x 3 cells around its
    centre that predict it best, as many as the sum of their IoUs. ``tal`` (task-aligned): of the predictions whose
    cell's centre is in its box, the ``top_k`` that class and place it best. ``auto``: by the head's box coding,
    without anchors ``simota`` if it has objectness, else ``tal``."""
    class_loss: Literal["bce", "varifocal"] = "bce"
    """Of heads without objectness: ``bce``, cross-entropy with the quality of a prediction as its target (in ``simota``
    its IoU); ``varifocal`` weighs negatives by 0.75 p^2 and positives by their quality."""
    top_k: Annotated[int, Interval(ge=1, le=1000)] = 13
    """``tal``: most predictions of an object."""
    nearest_cells: Annotated[int, Interval(ge=1, le=100)] = 4
    """``tal``: an object with fewer cells inside, as a tiny one, has as many of the nearest ones."""
    score_power: Annotated[float, Interval(ge=0, le=20)] = 1.0
    """``tal``: alpha of the alignment score^alpha * IoU^beta."""
    iou_power: Annotated[float, Interval(ge=0, le=20)] = 6.0
    """``tal``: beta of it."""
    anchor_ratio: Annotated[float, Ge(1)] = 4.0
    """``yolov5``: a box matches an anchor when no side differs by more than this factor."""
    ignore_iou: Share = 0.7
    """``yolov3``: a negative whose box has a higher IoU with an object has no objectness loss."""
    label_smoothing: Annotated[float, Interval(ge=0, le=0.5)] = 0.0
    """s of the class targets 1 - s/2 and s/2, which in ``simota`` and ``tal`` are the quality and 0."""
    focal_gamma: Annotated[float, Interval(ge=0, le=5)] = 0.0
    """Gamma of the focal loss on objectness and classes; 0 is plain cross-entropy."""
    balance: Listed[Annotated[float, Ge(0)]] = ()
    """Objectness weights of the levels, finest first; empty is 4, 1, 0.4 on three levels, and on others
    ``detect.losses.detection.default_balance``."""


@dataclass(frozen=True)
class AnchorsConfig(Strict):
    """Fitting of the anchors to the training boxes.

    The fit is the share of training boxes that match an anchor. With YOLOv5's assignment it is the best possible
    recall, by ``loss.anchor_ratio``; with YOLOv3's the share of boxes whose IoU with an anchor about the same centre is
    at least 0.25.
    """

    fit: Literal["auto", "always", "never"] = "auto"
    """``auto``: only if the share is below ``min_recall``."""
    min_recall: Share = 0.98
    """Smallest sufficient share."""
    method: Literal["log-kmeans", "iou-kmeans", "genetic"] = "log-kmeans"
    """k-means on the logarithms of the sides (``log-kmeans``) or by 1 - IoU as in YOLOv2 (``iou-kmeans``); ``genetic``
    refines the first by random changes, of which those stay that bring boxes closer to their anchors."""


@dataclass(frozen=True)
class EmaConfig(Strict):
    """Exponential moving average (EMA) of the weights, which is evaluated and saved."""

    decay: Annotated[float, Interval(ge=0, le=0.99999)] = 0.9999
    """Final decay; 0 disables the EMA."""
    ramp_steps: Annotated[int, Ge(1), Unit("updates")] = 2000
    """The decay at update t is ``decay * (1 - exp(-t / ramp_steps))``."""


@dataclass(frozen=True)
class SdpointConfig(Strict):
    """Stochastic downsampling: each batch uses another instance of the network, so that one network can run at many
    costs (``detect.papers.sdpoint``). The norm statistics of each instance are computed at the end.

    Source: SDPoint (Kuen et al., 2018), section 3.
    """

    ratios: Listed[Annotated[float, Interval(ge=0.05, le=0.99)]] = ()
    """Resize factors of the maps behind a point; the paper has 0.5 and 0.75. Without ratios and sizes it is off."""
    sizes: Listed[Annotated[float, Ge(0.05)]] = ()
    """Image sizes below ``image_size`` at which the plain network and all points are instances too: pixels, or up to 1
    shares of it."""
    points: Listed[Annotated[int, Ge(1)]] = ()
    """Numbers of the active points, from 1; empty is all."""
    schedule: Literal["paper", "sandwich"] = "paper"
    """``paper``: each batch goes through one instance, drawn uniformly. ``sandwich``: each goes through the plain
    network, the cheapest instance and ``drawn`` others, which learn what the plain network predicts as well."""
    plain_share: Annotated[float, Interval(ge=0, le=0.95)] = 0.0
    """Of ``paper``: probability that a batch goes through the plain network at full size; 0 draws it as any other."""
    drawn: Annotated[int, Ge(0), Unit("instances")] = 1
    """Of ``sandwich``: number of instances that are drawn for each batch."""
    affine: Literal["shared", "own"] = "shared"
    """Scales and shifts of the norms: for all instances, or with differences that each trains (``own``; ours)."""
    way: Literal["restore", "shrink"] = "restore"
    """Detector levels behind a point: ``restore`` resizes them to their original size before the neck, ``shrink``
    makes neck and head cheaper as well. No effect in classifiers."""
    norm_batches: Annotated[int, Ge(0), Unit("batches")] = 100
    """Number of training batches for the statistics; 0 is all."""

    @property
    def is_on(self) -> bool:
        return bool(self.ratios or self.sizes)


@dataclass(frozen=True)
class TrdConfig(Strict):
    """Reduced resolution: in some epochs, all batches are downsampled before the forward pass. The norm statistics are
    measured anew at the full size before each validation.

    Source: Temporally Resolution Decrement, Algorithm 1, appendix A for the guard, and Table 6 for the variants. Our
    reading: ``three`` draws its size by the epoch. Ours: ``progressive``, ``exact``, the measured statistics, and the
    guard around the last mosaic and before the end.
    """

    resolution: Annotated[float, Ge(0)] = 0.0
    """Long side of the reduced images in pixels; up to 1, a share of ``image_size``. 0 disables it."""
    probability: Share = 0.5
    """P, the probability that an epoch is reduced; for ``batch``, the share of reduced images."""
    variant: Literal["random", "paper", "progressive", "regular", "mixed", "three", "batch"] = "random"
    """``random``: epochs are drawn. ``paper``: as ``random``, but the last epochs may be reduced too.
    ``progressive``: the first epochs, at rising sizes. ``regular``: every second epoch. ``mixed``: in drawn epochs each
    batch has a size uniform between ``resolution`` and ``image_size``. ``three``: drawn epochs have ``resolution``
    or the size midway to ``image_size``. ``batch``: in every batch some images are reduced."""
    exact: bool = False
    """Reduce exactly the share ``probability`` of all epochs, as far as guards allow."""
    guard: Annotated[int, Ge(0), Unit("epochs")] = 2
    """Epochs that are not reduced on each side of a step of the learning rate and of the last mosaic, and at the end,
    where the rate is lowest."""
    interpolation: Literal["nearest", "area"] = "nearest"
    """Interpolation of the downsampling: for half the size, ``nearest`` takes every second pixel, ``area`` the mean of
    four."""


@dataclass(frozen=True)
class DetectionTrd(TrdConfig):
    """Reduced resolution for a detector; the paper has it for classifiers only."""

    min_object_px: Annotated[float, Ge(0), Unit("px")] = 0.0
    """Smallest median object of a reduced image (root of its area); images below it are not reduced; 0 reduces all."""


@dataclass(frozen=True)
class EvaluationConfig(Strict):
    """Validation while training."""

    every: Annotated[int, Ge(1), Unit("epochs")] = 1
    """Epochs between validations; the last epoch is always validated."""
    save_best: Listed[str] = ()
    """Metrics with a best checkpoint each; the first one is ``best.pt`` and controls early stopping."""
    patience: Annotated[int, Ge(0), Unit("epochs")] = 0
    """Epochs without a better ``save_best[0]`` before the run stops; 0 never stops."""

    def contradictions(self) -> Iterator[tuple[str, str]]:
        if not self.save_best:
            yield "save_best", f"is empty; name at least one metric, such as {type(self)().save_best[0]}"


@dataclass(frozen=True)
class DetectionEvaluation(EvaluationConfig):
    """Validation of a detector."""

    save_best: Listed[Literal["AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L", "AR_100"]] = ("AP",)


@dataclass(frozen=True)
class ClassificationEvaluation(EvaluationConfig):
    """Validation of a classifier."""

    save_best: Listed[Literal["top1", "top5"]] = ("top1",)


@dataclass(frozen=True)
class Recipe(Strict):
    """A training recipe: the keys that detection and classification share."""

    epochs: Annotated[int, Ge(1), Unit("epochs")] = 300
    """Passes over the training set."""
    min_updates: Annotated[int, Ge(0), Unit("updates")] = 0
    """Least number of updates of the weights: a training set that is too small for it has more epochs, and
    ``evaluation.every`` is as much longer. 0 leaves ``epochs`` as they are."""
    batch_size: Annotated[int, Ge(1), Unit("images")] = 16
    """Images per forward pass, over all processes."""
    nominal_batch_size: Annotated[int, Ge(0), Unit("images")] = 64
    """Images per update; gradients accumulate up to it. 0 is ``batch_size``."""
    image_size: Annotated[int, Ge(1), Unit("px")] = 640
    """Long side of the network input in pixels."""
    train_images: Annotated[int, Ge(0), Unit("images")] = 0
    """Number of training images, drawn at random: always the same ones, and 16 are among the 32. It shows what more
    labelled images would be worth. 0 is all."""
    multi_scale: Annotated[float, Interval(ge=0, le=0.9)] = 0.0
    """Batches are resized by a factor uniform in 1 +- multi_scale, rounded to a multiple of the model's reduction."""
    multi_scale_px: Listed[Annotated[int, Ge(1), Unit("px")]] = ()
    """Smallest and largest long side to which batches are resized, in steps of the model's reduction; in place of
    ``multi_scale``."""
    seed: Annotated[int, Interval(ge=0, le=2**63 - 1)] = 0
    """Seed of everything random."""
    workers: Annotated[int, Ge(0), Unit("processes")] = 2
    """Processes that load data; 0 loads in the training process."""
    threads: Annotated[int, Ge(0), Unit("threads")] = 0
    """Computing threads on a CPU; 0 is one for each core. Several are faster on an idle machine but take more CPU time;
    beside other programs they wait for one another, and 1 is faster (benchmarks/README.md)."""
    cache: Literal["none", "ram", "disk"] = "none"
    """Decoded training images are kept in memory, or (in detection) in a memory-mapped file in the output folder."""
    checkpoint_minutes: Annotated[float, Ge(0), Unit("minutes")] = 10.0
    """Minutes between two checkpoints within an epoch; 0 is after each epoch only."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """``auto`` measures bf16 against fp32 on this machine for a CPU, and takes bf16 on a GPU that has it."""
    norm_momentum: Share = 0.0
    """Momentum of the norms' running statistics; 0 is the model's own. In a short training the statistics must follow
    the weights quickly."""
    initialisation: Literal["torch", "he-in", "he-out"] = "torch"
    """Initial weights of convolutions: PyTorch's own, or He's normal distribution, by a kernel's inputs (``he-in``,
    Caffe's MSRA) or outputs (``he-out``). Other layers keep PyTorch's; copied weights replace them."""
    freeze: Listed[str] = ()
    """Frozen sections (``backbone``) or rows (``stem``); their norms keep their statistics as well."""
    optimizer: OptimizerConfig = OptimizerConfig()
    ema: EmaConfig = EmaConfig()
    sdpoint: SdpointConfig = SdpointConfig()
    trd: TrdConfig = TrdConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    def contradictions(self) -> Iterator[tuple[str, str]]:
        ends = self.multi_scale_px
        if ends and (len(ends) != 2 or ends[0] > ends[1]):
            yield "multi_scale_px", f"must be the smallest and the largest, found {list(ends)}"
        if ends and self.multi_scale:
            yield "multi_scale_px", "takes the place of multi_scale; give one of them"


@dataclass(frozen=True)
class DetectionRecipe(Recipe):
    """A recipe for detectors.

    ``image_size`` is a multiple of 32. Mosaics fill a square; epochs without them go through the smallest rectangle
    that holds every image.
    """

    classes: Listed[str] = ()
    """Names of the classes to train, in this order; the objects of others are left out, so that images without any of
    these are background. Empty is all. Validation leaves out the same."""
    single_class: bool = False
    """All classes, or those of ``classes``, are one class ``object``, also in validation."""
    tiles: TilesConfig = TilesConfig()  # noqa: RUF009  # frozen
    sampling: SamplingConfig = SamplingConfig()  # noqa: RUF009  # frozen
    augment: AugmentConfig = AugmentConfig()  # noqa: RUF009  # frozen
    loss: LossConfig = LossConfig()
    anchors: AnchorsConfig = AnchorsConfig()
    trd: DetectionTrd = DetectionTrd()
    evaluation: DetectionEvaluation = DetectionEvaluation()

    def contradictions(self) -> Iterator[tuple[str, str]]:
        yield from super().contradictions()
        if repeated := [name for name, count in Counter(self.classes).items() if count > 1]:
            yield "classes", f"names {repeated[0]!r} twice"
        size, below = self.image_size, self.image_size // 32 * 32
        if size % 32:
            nearest = f"the nearest are {below} and {below + 32}" if size > 32 else "the least is 32"
            yield "image_size", f"{size} is not a multiple of 32; {nearest}"


@dataclass(frozen=True)
class ClassificationRecipe(Recipe):
    """A recipe for classifiers."""

    center_crop: Annotated[float, Interval(ge=0.1, le=1)] = 1.0
    """Evaluation resizes an image's short side to ``image_size / center_crop`` pixels and takes the center crop. 1 is
    for small images, 0.875 usual for large ones."""
    label_smoothing: Annotated[float, Interval(ge=0, le=0.9)] = 0.0
    """Share of each target that is spread over all classes."""
    augment: ClassAugmentConfig = ClassAugmentConfig()  # noqa: RUF009  # frozen
    evaluation: ClassificationEvaluation = ClassificationEvaluation()

    def contradictions(self) -> Iterator[tuple[str, str]]:
        yield from super().contradictions()
        if self.augment.crop == "resize" and self.augment.resize_px[0] < self.image_size:
            found = self.augment.resize_px[0]
            yield "augment.resize_px", f"must not be below image_size {self.image_size}, found {found}"
        if self.cache == "disk":
            yield "cache", "disk is for detection; allowed here: none, ram"


AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def load_detection_recipe(name: str, overrides: dict[str, Any]) -> DetectionRecipe:
    """Load a detector's recipe with dotted ``overrides`` (``{"optimizer.lr": 0.02}``)."""
    return _load_recipe(DetectionRecipe, name, overrides)


def load_classification_recipe(name: str, overrides: dict[str, Any]) -> ClassificationRecipe:
    """Load a classifier's recipe with dotted ``overrides``."""
    return _load_recipe(ClassificationRecipe, name, overrides)


def _load_recipe(schema: type[AnyRecipe], name: str, overrides: dict[str, Any]) -> AnyRecipe:
    path = find_config("train", name)
    content = load_yaml(path)
    where = f"{path} (with overrides)" if overrides else str(path)
    changed = copy.deepcopy(content)
    for key, value in overrides.items():
        _put(changed, key, value)
    try:
        return build(schema, changed, where)
    except InputError:
        _refuse_other_task(schema, content, path)
        raise


def _refuse_other_task(schema: type[Recipe], content: dict[str, Any], path: Path) -> None:
    """Refuse a valid recipe of the other task with one line instead of one for each key."""
    other, task, model = {
        DetectionRecipe: (ClassificationRecipe, "classifiers", "a detector"),
        ClassificationRecipe: (DetectionRecipe, "detectors", "a classifier"),
    }[schema]
    if not _fits(schema, content) and _fits(other, content):
        raise InputError(f"{path}: is a recipe for {task}, but the model is {model}")


def _fits(schema: type[Recipe], content: dict[str, Any]) -> bool:
    try:
        build(schema, content, "")
    except InputError:
        return False
    return True


def _put(content: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        below = content.setdefault(parent, {})
        if not isinstance(below, dict):
            raise InputError(f"{dotted}: {parent} is a value, not a section")
        content = below
    content[last] = value
