"""What a YAML may say: frozen dataclasses, each field with its type, default, unit and limits.

``limits`` are inclusive. The loader (``detect.config.loader``) refuses every key that is not here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


def limited(default: Any, low: float | None = None, high: float | None = None) -> Any:
    """A dataclass field with inclusive limits; ``None`` leaves that side open."""
    return field(default=default, metadata={"limits": (low, high)})


# ---------------------------------------------------------------------------------------------- data


@dataclass(frozen=True)
class SplitConfig:
    """One split of a data set; paths are relative to the data set's root.

    Args:
        images: folder of the images. ``folders``: the folder that holds one folder for each class. ``cifar``: the
            archive (``cifar-10-python.tar.gz``, ``cifar-100-binary.tar.gz``) or the folder that it unpacks to; of what
            matches a pattern (``cifar-10-*``) the first is taken. ``shards``: the tar files, ``train-*.tar`` or
            ``train-{000000..000119}.tar``.
        annotations: COCO: the JSON file. VOC, VisDrone: the folder of the XML or txt files. YOLO: the folder of the txt
            files; default, ``labels`` in the place of ``images``. ``cifar``: the part of the archive,
            ``train`` or ``test``; default, the split's own name. ``tiny-imagenet``: the file that says what validation
            images show (``val/val_annotations.txt``); training images lie in the folders of their classes. Not used
            by ``folders``.
        list: VOC, VisDrone: text file with one image stem per line (``ImageSets/Main/train.txt``). YOLO: text file with
            one image path per line, relative to that file, to the root or to ``images``.
        parts: YOLO: several folders of images, and text files as in ``list``, that are the split together; ``images``
            is then the folder above them.
    """

    images: str
    annotations: str | None = None
    list: str | None = None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class RangeConfig:
    """A range of values that is measured on the training split.

    Args:
        percentiles: of all values in a sample of the images: the first becomes black, the second white.
    """

    percentiles: tuple[float, ...] = limited((0.01, 99.99), 0, 100)


@dataclass(frozen=True)
class DataConfig:
    """A data set.

    Args:
        name: how reports call it.
        root: folder, relative to the YAML's own folder; ``--data-root`` replaces it.
        splits: split name (train, val, test, ...) to its files.
        format: how the annotations are written. For detection ``coco``, ``voc``, ``yolo``, ``visdrone`` and ``shards``,
            which are recognised when this is left out (``detect.data.recognition``); for classification ``folders`` (a
            folder of images for each class), ``cifar`` (the archives of CIFAR-10 and CIFAR-100) and ``tiny-imagenet``.
        names: class names in index order. COCO, VisDrone, shards: categories to use (others are dropped); default, all.
            VOC: default, all names found in the training split, sorted. YOLO: the names of the classes 0, 1, ...;
            default, the lines of ``classes.txt``, else the numbers. ``folders``: folders to use; default, all of
            the training split, sorted. ``cifar``, ``tiny-imagenet``: classes to use; default, all.
        background: whether images without boxes are trained on.
        generate: ``shapes`` makes the embedded data set in ``root`` when it is not there.
        range: of images with more than 8 bits a channel, the values that become black and white: ``[low, high]``, or
            ``measured``, or the percentiles to measure. Default: measured where the values need it, because they use
            less than half of the 256 levels that the high byte has, or have a sign or a fraction. Others keep the high
            byte. Images of 8 bits are never changed.
        max_pixels: larger images are skipped. Decoding takes 7 bytes a pixel for a while.
    """

    name: str
    root: str
    splits: dict[str, SplitConfig]
    format: Literal["coco", "voc", "yolo", "visdrone", "shards", "folders", "cifar", "tiny-imagenet"] | None = None
    names: tuple[str, ...] | None = None
    background: Literal["keep", "drop"] = "keep"
    generate: Literal["shapes"] | None = None
    range: tuple[float, ...] | RangeConfig | Literal["measured"] | None = None
    max_pixels: int = limited(178_956_970, 1, 2**30)


# ------------------------------------------------------------------------------------------- recipe


@dataclass(frozen=True)
class AlbumentationConfig:
    """One transform of the albumentations library.

    Args:
        name: its class name (``Blur``, ``GaussNoise``, ``CLAHE``, ...).
        p: probability.
        args: its other keyword arguments.
    """

    name: str
    p: float = limited(0.5, 0, 1)
    args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of training images. Probabilities are per sample.

    Args:
        mosaic: probability of a mosaic instead of the single image.
        mosaic9: share of the mosaics that are made of nine images instead of four.
        close_mosaic: the last so many epochs have no mosaic, mixup or cutmix.
        mixup: probability of blending with a second sample (weights from Beta(32, 32)). A sample is mixed one way at
            most, so mixup and cutmix together are at most 1.
        cutmix: probability of pasting a rectangle of a second sample (area share from Beta(1, 1)).
        degrees: rotation, uniform in +-degrees.
        translate: shift, uniform in +-translate, as a share of the image size.
        scale: zoom, uniform in [1 - scale, 1 + scale].
        shear: shear, uniform in +-degrees, x and y.
        perspective: perspective coefficients, uniform in +-perspective, per pixel.
        flip_left_right: probability.
        flip_up_down: probability.
        rotate90: probability of a turn by 90, 180 or 270 degrees (images seen from above have no upright).
        hsv_hue: hue gain, uniform in +-hsv_hue, as a share of the circle.
        hsv_saturation: saturation factor, uniform in 1 +- hsv_saturation.
        hsv_value: value factor, uniform in 1 +- hsv_value.
        albumentations: further transforms, applied in order to each finished sample.
    """

    mosaic: float = limited(1.0, 0, 1)
    mosaic9: float = limited(0.0, 0, 1)
    close_mosaic: int = limited(10, 0)
    mixup: float = limited(0.0, 0, 1)
    cutmix: float = limited(0.0, 0, 1)
    degrees: float = limited(0.0, 0, 180)
    translate: float = limited(0.1, 0, 1)
    scale: float = limited(0.5, 0, 0.99)
    shear: float = limited(0.0, 0, 45)
    perspective: float = limited(0.0, 0, 0.001)
    flip_left_right: float = limited(0.5, 0, 1)
    flip_up_down: float = limited(0.0, 0, 1)
    rotate90: float = limited(0.0, 0, 1)
    hsv_hue: float = limited(0.015, 0, 0.5)
    hsv_saturation: float = limited(0.7, 0, 1)
    hsv_value: float = limited(0.4, 0, 1)
    albumentations: tuple[AlbumentationConfig, ...] = ()


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimiser and learning-rate schedule.

    Args:
        name: ``sgd`` is SGD with Nesterov momentum, ``adamw`` AdamW (``momentum`` is its beta1).
        lr: peak learning rate.
        final_lr_factor: the rate ends at ``lr * final_lr_factor`` (``cosine``, ``linear`` and ``poly``).
        schedule: decay from the peak to the end.
        power: of ``poly``: the rate falls with (1 - progress) ** power.
        milestones: of ``step``: shares of the training after which the rate is multiplied by ``step_factor``.
        step_factor: see there.
        momentum: momentum, or beta1.
        weight_decay: on weights of convolutions and linear layers only, never on biases and norms, nor on the k x k
            filters of ``conv: depthwise``. In detection, whose loss is a sum over images, SGD's is scaled by images per
            update / 64.
        mask_decay: whether Q, of which the binary weights of ``conv: bdsc`` are made, decays too; only such models have
            any.
        warmup_epochs: length of the linear warm-up, in epochs.
        warmup_min_steps: the warm-up is at least so many updates (small data sets have short epochs).
        warmup_momentum: momentum at the start of the warm-up.
        warmup_bias_lr: learning rate of biases at the start of the warm-up (other rates start at 0).
        clip_norm: gradients are clipped to this L2 norm; 0 does not clip.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = limited(0.01, 0, 10)
    final_lr_factor: float = limited(0.1, 0, 1)
    schedule: Literal["cosine", "linear", "poly", "step", "constant"] = "cosine"
    power: float = limited(4.0, 0, 100)
    milestones: tuple[float, ...] = limited((0.8, 0.9), 0, 1)
    step_factor: float = limited(0.1, 0, 1)
    momentum: float = limited(0.937, 0, 0.9999)
    weight_decay: float = limited(0.0005, 0, 1)
    mask_decay: bool = True
    warmup_epochs: float = limited(3.0, 0)
    warmup_min_steps: int = limited(100, 0)
    warmup_momentum: float = limited(0.8, 0, 0.9999)
    warmup_bias_lr: float = limited(0.1, 0, 10)
    clip_norm: float = limited(10.0, 0)


@dataclass(frozen=True)
class LossConfig:
    """Gains and options of the detection loss (YOLOv5 v6.0). The gains are stated for YOLOv5's assignment;
    ``detect.losses.detection`` brings them to YOLOv3's, provisionally.

    Args:
        box: gain of the box loss, 1 - IoU.
        box_iou: which IoU that is (``detect.boxes.iou``).
        objectness: gain of the objectness loss at 640 px (scaled by (image size / 640) ** 2).
        classes: gain of the class loss at 80 classes (scaled by classes / 80).
        assignment: who learns an object. ``yolov5``: every anchor whose sides are within ``anchor_ratio``, in up to
            three cells. ``yolov3``: the one anchor most like it, in one cell. ``auto``: as the head codes its boxes.
        anchor_ratio: ``yolov5``: a box matches an anchor when no side differs by more than this factor.
        ignore_iou: ``yolov3``: an unmatched prediction whose box overlaps an object by more than this IoU has no
            objectness loss.
        label_smoothing: class targets are 1 - s/2 and s/2.
        focal_gamma: gamma of the focal loss on objectness and classes; 0 is plain cross-entropy.
        balance: objectness weights of the levels, finest first; empty is 4, 1, 0.4 on three levels, and on others
            ``detect.losses.detection.default_balance``.
    """

    box: float = limited(0.05, 0)
    box_iou: Literal["iou", "giou", "diou", "ciou"] = "ciou"
    objectness: float = limited(1.0, 0)
    classes: float = limited(0.5, 0)
    assignment: Literal["auto", "yolov5", "yolov3"] = "auto"
    anchor_ratio: float = limited(4.0, 1)
    ignore_iou: float = limited(0.7, 0, 1)
    label_smoothing: float = limited(0.0, 0, 0.5)
    focal_gamma: float = limited(0.0, 0, 5)
    balance: tuple[float, ...] = limited((), 0)


@dataclass(frozen=True)
class AnchorsConfig:
    """Fitting of the anchors to the training boxes.

    How well anchors suit is the share of training boxes that some anchor serves. With YOLOv5's assignment that is the
    best possible recall: it matches by ``loss.anchor_ratio``. With YOLOv3's it is the close recall: its IoU with the
    box, about the same centre, is 0.25 or more.

    Args:
        fit: ``auto`` fits when the share is below ``min_recall``.
        min_recall: the share that is enough.
    """

    fit: Literal["auto", "always", "never"] = "auto"
    min_recall: float = limited(0.98, 0, 1)


@dataclass(frozen=True)
class EmaConfig:
    """Moving average of the weights, which is what is evaluated and saved.

    Args:
        decay: final decay; 0 turns the average off.
        ramp_steps: the decay at update t is ``decay * (1 - exp(-t / ramp_steps))``.
    """

    decay: float = limited(0.9999, 0, 0.99999)
    ramp_steps: int = limited(2000, 1)


@dataclass(frozen=True)
class SdpointConfig:
    """Stochastic downsampling: each batch goes through another instance of the network, so that one network can run at
    many costs (``detect.papers.sdpoint.transform``). The norms' statistics of each instance are computed at the end.

    Args:
        ratios: heights and widths behind a point become so much smaller; the paper has 0.5 and 0.75. None turns it off.
        points: numbers of the points that take part, from 1; empty is all.
        way: what becomes of a detector's levels behind a point: ``restore`` brings them back to their size before the
            neck, ``shrink`` makes neck and head cheaper too. For classifiers it means nothing.
        norm_batches: training batches from which the statistics are computed; 0 is all.

    Source: SDPoint (Kuen et al., 2018), section 3.
    """

    ratios: tuple[float, ...] = limited((), 0.05, 0.99)
    points: tuple[int, ...] = limited((), 1)
    way: Literal["restore", "shrink"] = "restore"
    norm_batches: int = limited(100, 0)


@dataclass(frozen=True)
class TrdConfig:
    """Training with reduced resolution: in some epochs, all batches are made smaller before the forward pass.

    Args:
        resolution: long side of the smaller images in pixels; up to 1, a share of ``image_size``. 0 turns it off.
        probability: P, of an epoch to be reduced; of ``batch``, the share of images that are.
        variant: ``random``: epochs are drawn. ``regular``: every second epoch. ``mixed``: in drawn epochs each batch
            has a size between ``resolution`` and ``image_size``, all equally likely. ``three``: drawn epochs have
            ``resolution`` or the size midway to ``image_size``. ``batch``: in every batch some images are reduced.
        exact: of all epochs exactly the share ``probability`` is drawn, as far as guards allow.
        guard: so many epochs on each side of a step of the learning rate, and of the last mosaic, are not reduced.
        interpolation: how images are made smaller. ``nearest`` takes every second pixel for half the size.

    Source: Temporally Resolution Decrement, Algorithm 1, appendix A for the guard, and Table 6 for the variants. That
    ``three`` draws its size by the epoch is our reading; ``exact`` and the guard around the last mosaic are ours.
    """

    resolution: float = limited(0.0, 0)
    probability: float = limited(0.5, 0, 1)
    variant: Literal["random", "regular", "mixed", "three", "batch"] = "random"
    exact: bool = False
    guard: int = limited(2, 0)
    interpolation: Literal["nearest", "area", "bilinear"] = "nearest"


@dataclass(frozen=True)
class DetectionTrd(TrdConfig):
    """Reduced resolution for a detector; see ``TrdConfig``. The paper has it for classifiers only.

    Args:
        min_object_px: images whose median object, the root of its area, would be under so many pixels are not reduced;
            0 reduces all.
    """

    min_object_px: float = limited(0.0, 0)


@dataclass(frozen=True)
class EvaluationConfig:
    """Validation while training.

    Args:
        every: epochs between validations; the last epoch is always validated.
        save_best: metrics that each keep their own best checkpoint; the first one is ``best.pt`` and rules early
            stopping.
        patience: stop after so many epochs without a better ``save_best[0]``; 0 never stops.
    """

    every: int = limited(1, 1)
    save_best: tuple[str, ...] = ()
    patience: int = limited(0, 0)


@dataclass(frozen=True)
class DetectionEvaluation(EvaluationConfig):
    """Validation of a detector; see ``EvaluationConfig``."""

    save_best: tuple[Literal["AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L", "AR_100"], ...] = ("AP",)


@dataclass(frozen=True)
class ClassificationEvaluation(EvaluationConfig):
    """Validation of a classifier; see ``EvaluationConfig``."""

    save_best: tuple[Literal["top1", "top5"], ...] = ("top1",)


@dataclass(frozen=True)
class ClassAugmentConfig:
    """Augmentation of a classifier's training images. Probabilities are per image, those of mixing per batch.

    Args:
        crop: how a training image is cut out, S being the image size. ``none``: the middle, as in evaluation. ``pad``:
            S x S pixels anywhere in the image with ``padding`` black pixels around it. ``resize``: the image is resized
            to a side uniform in ``resize_px``, then S x S pixels anywhere in it. ``area``: a rectangle with a share of
            the image uniform in ``area`` and an aspect ratio up to ``aspect``, anywhere, resized to S x S.
        padding: of ``pad``.
        resize_px: of ``resize``: smallest and largest side in pixels.
        area: of ``area``: smallest and largest share.
        aspect: of ``area``: the ratio of the sides is log-uniform in [1 / aspect, aspect].
        degrees: rotation, uniform in +-degrees.
        flip_left_right: probability.
        flip_up_down: probability.
        brightness: factor uniform in 1 +- brightness.
        contrast: factor on the distance from the image's mean grey, uniform in 1 +- contrast.
        saturation: factor on the distance from each pixel's grey, uniform in 1 +- saturation.
        hue: turn of the hue, uniform in +-hue, as a share of the circle.
        cutout: side in pixels of a square that is set to grey, anywhere with its centre in the image; 0 for none.
        mixup: probability that a batch is blended with itself in another order.
        mixup_alpha: the weight is drawn from Beta(alpha, alpha).
        cutmix: probability that a rectangle of a batch is replaced by that of the batch in another order. A batch is
            mixed one way at most, so mixup and cutmix together are at most 1.
        cutmix_alpha: the area is drawn from Beta(alpha, alpha).

    Source: ResNet (He et al., 2016), section 4.2, for ``pad``; BDSC (2018), section 4.1, for ``resize``; GoogLeNet
    (Szegedy et al., 2015), section 6, for ``area``; Cutout (DeVries and Taylor, 2017); mixup (Zhang et al., 2018);
    CutMix (Yun et al., 2019).
    """

    crop: Literal["none", "pad", "resize", "area"] = "none"
    padding: int = limited(4, 0)
    resize_px: tuple[int, ...] = limited((), 1)
    area: tuple[float, ...] = limited((0.08, 1.0), 0.001, 1)
    aspect: float = limited(4 / 3, 1, 10)
    degrees: float = limited(0.0, 0, 180)
    flip_left_right: float = limited(0.5, 0, 1)
    flip_up_down: float = limited(0.0, 0, 1)
    brightness: float = limited(0.0, 0, 1)
    contrast: float = limited(0.0, 0, 1)
    saturation: float = limited(0.0, 0, 1)
    hue: float = limited(0.0, 0, 0.5)
    cutout: int = limited(0, 0)
    mixup: float = limited(0.0, 0, 1)
    mixup_alpha: float = limited(1.0, 0.001, 1000)
    cutmix: float = limited(0.0, 0, 1)
    cutmix_alpha: float = limited(1.0, 0.001, 1000)


@dataclass(frozen=True)
class Recipe:
    """A training recipe: what detection and classification have in common.

    Args:
        epochs: passes over the training set.
        batch_size: images per forward pass, over all processes.
        nominal_batch_size: images per update; gradients accumulate up to it. 0 is ``batch_size``.
        image_size: long side of the network input in pixels.
        multi_scale: batches are resized by a factor uniform in 1 +- multi_scale, to what the model can take.
        seed: seed of everything random.
        workers: processes that load data; 0 loads in the training process.
        threads: threads that compute on a CPU; 0 tries which number is fastest and leaves out as many as other programs
            take cores (benchmarks/README.md). A stated number gives equal results however busy the machine is.
        cache: decoded training images are kept in memory, or (in detection) in a memory-mapped file in the output
            folder.
        checkpoint_minutes: the run is kept after each epoch, and within one so many minutes after it was last; 0 is
            after each epoch only.
        precision: ``auto`` measures bf16 against fp32 on this machine for a CPU, and takes bf16 on a GPU that has it.
        norm_momentum: share of a batch in the running statistics of the norms; 0 is the model's own. In a training of
            few updates the statistics must follow the weights quickly.
        freeze: sections (``backbone``) or rows (``stem``) that do not learn; their norms keep their statistics too.
        optimizer, ema, sdpoint, trd, evaluation: see there.
    """

    epochs: int = limited(300, 1)
    batch_size: int = limited(16, 1)
    nominal_batch_size: int = limited(64, 0)
    image_size: int = limited(640, 1)
    multi_scale: float = limited(0.0, 0, 0.9)
    seed: int = limited(0, 0, 2**63 - 1)
    workers: int = limited(2, 0)
    threads: int = limited(0, 0)
    cache: Literal["none", "ram", "disk"] = "none"
    checkpoint_minutes: float = limited(10.0, 0)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    norm_momentum: float = limited(0.0, 0, 1)
    freeze: tuple[str, ...] = ()
    optimizer: OptimizerConfig = OptimizerConfig()
    ema: EmaConfig = EmaConfig()
    sdpoint: SdpointConfig = SdpointConfig()
    trd: TrdConfig = TrdConfig()
    evaluation: EvaluationConfig = EvaluationConfig()


@dataclass(frozen=True)
class DetectionRecipe(Recipe):
    """A recipe for detectors; see ``Recipe``.

    ``image_size`` is a multiple of 32. Mosaics fill a square; epochs without them go through the smallest rectangle
    that holds every image.
    """

    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    anchors: AnchorsConfig = AnchorsConfig()
    trd: DetectionTrd = DetectionTrd()
    evaluation: DetectionEvaluation = DetectionEvaluation()


@dataclass(frozen=True)
class ClassificationRecipe(Recipe):
    """A recipe for classifiers; see ``Recipe``.

    Args:
        center_crop: evaluation resizes an image's short side to ``image_size / center_crop`` pixels and takes the
            middle. 1 is for small images, 0.875 usual for large ones.
        label_smoothing: so much of each target is spread over all classes.
        augment, evaluation: see there.
    """

    center_crop: float = limited(1.0, 0.1, 1)
    label_smoothing: float = limited(0.0, 0, 0.9)
    augment: ClassAugmentConfig = ClassAugmentConfig()
    evaluation: ClassificationEvaluation = ClassificationEvaluation()


@dataclass(frozen=True)
class RunConfig:
    """One experiment: a model, a data set and a recipe.

    Args:
        model: model name or file.
        data: data-set name or file.
        recipe: recipe name or file; by default ``default`` for a detector and ``classify`` for a classifier.
        set: recipe keys that differ, dotted (``optimizer.lr: 0.02``).
    """

    model: str
    data: str
    recipe: str | None = None
    set: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ParameterConfig:
    """What a search may give one key of the recipe: a range, or a list of choices.

    Args:
        low: smallest value.
        high: largest value. What is between is equally likely; a key that is a whole number gets whole numbers.
        log: equally likely on a logarithmic scale: as often in [0.001, 0.01] as in [0.01, 0.1].
        choices: words, numbers, true or false, each equally likely.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True)
class SweepConfig:
    """A random search over keys of a recipe: an experiment that is trained many times, each time with other values.

    Args:
        name: how reports call it.
        metric: what is to be as large as possible, as in ``evaluation.save_best``.
        space: dotted recipe keys (``optimizer.lr``) and what they may be.
        run: experiment name or file.
        model: model name or file; with ``run``, instead of the experiment's. So are ``data`` and ``recipe``.
        data: data-set name or file.
        recipe: recipe name or file.
        data_root: where the data set is, instead of what its YAML says; relative to the current folder.
        trials: how many trainings.
        seed: of the values that are drawn.
        set: recipe keys that are the same in all trials, dotted.
    """

    name: str
    metric: str
    space: dict[str, ParameterConfig]
    run: str | None = None
    model: str | None = None
    data: str | None = None
    recipe: str | None = None
    data_root: str | None = None
    trials: int = limited(20, 1)
    seed: int = limited(0, 0, 2**63 - 1)
    set: dict[str, Any] = field(default_factory=dict)
