"""Train the demo detector from scratch on CPU: a small wav2vec 2.0-shaped front-end, a Nes2Net-X back-end.

    python export/demo/train.py --corpus DIR --work DIR

The encoder's weights are computed (spectral_start.py); transformer and back-end learn. Their targets come
from classifiers over cepstral statistics (teacher.py), and those statistics are predicted beside them.
`--work` holds everything: vocoded copies, the checkpoint (the same command goes on from it),
`history.jsonl`, and `detector.safetensors` under the official key names, renewed as it goes.
"""

import argparse
import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import torch
import torch.nn.functional as F
from augment import Audio
from data import WINDOW, Clip, Speech, read_corpus, repeat, vocoded_copies
from lessons import Part, fit_teacher, make_lessons
from more_speech import more_speech
from safetensors.torch import save_file
from spectral_start import CHANNELS, LearnedChannels, start_as_cepstra, train_projection
from spectrum import usual_levels
from synthesis import synthetic_speech
from teacher import Teacher
from torch import Tensor, nn

from nes2net_calib.metrics import equal_error_rate
from nes2net_export.models.detector import Detector
from nes2net_export.random_models import XLSR_300M
from nes2net_export.state_dict import official_state_dict

CONFIG = replace(
    XLSR_300M,
    conv_channels=CHANNELS,
    width=192,
    layers=3,
    attention_heads=4,
    feed_forward=384,
    pos_conv_kernel=32,
    outer_splits=4,
    inner_splits=4,
    se_bottleneck=8,
    pooling="astp",
    pooling_bottleneck=32,
)
COPIES, MORE_COPIES = 6, 4  # of a human clip: of the corpus, of the rest
PARTS = 50  # of lessons
BATCH = 24
STEPS = 4500
RATE = 1e-3  # of learning, at its peak
STATISTICS_WEIGHT = 1.0  # of their squared error beside classification
MEMORY = 0.998  # of the average over steps that is evaluated and kept
EVERY = 250  # steps between evaluations and checkpoints


class Training(nn.Module):
    """The detector, and a linear head that predicts clip statistics while it trains."""

    def __init__(self, detector: Detector, statistics: int) -> None:
        super().__init__()
        self.detector = detector
        self.learned = LearnedChannels(self.detector.encoder)
        self.statistics = nn.Linear(self.detector.backend.classifier.in_features, statistics)

    def losses(self, audio: Tensor, log_odds: Tensor, statistics: Tensor) -> Tensor:
        """Squared error of the statistics, cross-entropy of the class: [2]."""
        backend = self.detector.backend
        pooled = backend.pool(self.detector.context(self.learned(audio)))
        target = log_odds.sigmoid()
        entropy = F.cross_entropy(backend.classifier(pooled), torch.stack([1 - target, target], 1))
        return torch.stack([F.mse_loss(self.statistics(pooled), statistics), entropy])


@torch.no_grad()
def score(detector: Detector, clips: list[Clip]) -> Audio:
    """Bona fide logit of each clip's first window: the official rule."""
    windows = [torch.from_numpy(repeat(clip.samples(), WINDOW)) for clip in clips]
    batches = [detector(torch.stack(windows[i : i + 16]))[:, 1] for i in range(0, len(windows), 16)]
    scores: Audio = torch.cat(batches).numpy()
    return scores


def eer(scores: Audio, clips: list[Clip]) -> float:
    bonafide = np.array([clip.bonafide for clip in clips])
    return equal_error_rate(scores[bonafide], scores[~bonafide]).rate


@torch.no_grad()
def make_opposite(classifier: nn.Linear) -> None:
    """Move both rows to halves of their difference, of opposite signs.

    The softmax stays as it is, but only so does the bona fide logit, which alone is the score, rank alike.
    """
    for p in classifier.parameters():
        half = (p[1] - p[0]) / 2
        p.copy_(torch.stack([-half, half]))


def schedule(step: int) -> float:
    """Learning rate: up within 200 steps, then a half cosine down to zero."""
    return RATE * min(step / 200, 0.5 + 0.5 * math.cos(math.pi * step / STEPS))


def batch(parts: list[Part], step: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Step's lessons, from (seed, step) alone: audio, the teacher's log odds, statistics."""
    rng = np.random.default_rng([seed, step])
    part = parts[rng.integers(len(parts))]
    chosen = rng.choice(len(part.log_odds), BATCH, replace=False)
    arrays = (part.audio[chosen] / 32768, part.log_odds[chosen], part.statistics[chosen])
    audio, log_odds, statistics = (torch.from_numpy(array.astype(np.float32)) for array in arrays)
    return audio, log_odds, statistics


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True, help="folder of corpus.csv and its audio")
    parser.add_argument("--work", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    dev = read_corpus(args.corpus, "dev")
    speech = gather(args.corpus, args.work, args.seed)
    human = np.concatenate([speech.draw(100, 24_000, [args.seed, 2, i])[0] for i in range(2)])
    levels = usual_levels(human)
    teacher = load_or_make(
        args.work / f"teacher-{args.seed}.joblib", lambda: fit_teacher(speech, levels, args.seed)
    )
    answers = np.concatenate([teacher(repeat(clip.samples(), WINDOW)[None])[0] for clip in dev])
    say(args.work, teacher_dev_eer=eer(answers, dev))

    parts = make_lessons(speech, teacher, PARTS, args.work / "lessons", args.seed)
    detector = Detector(CONFIG)
    say(args.work, cepstra_variance_left=start_as_cepstra(detector, levels, human))
    model = Training(detector, parts[0].statistics.shape[1])
    train(model, parts, dev, args.work, args.seed)


def gather(corpus: Path, work: Path, seed: int) -> Speech:
    """The corpus's train split, more speech of its speakers and its synthesisers, and vocoded copies."""
    clips = read_corpus(corpus, "train")
    human = [clip for clip in clips if clip.bonafide]
    more = more_speech(work / "more", clips)
    tts = [clip for clip in clips if not clip.bonafide and not clip.parent]
    tts += synthetic_speech(work / "more" / "tuxpaint-stamps-default", work / "synthetic", seed)
    copies = [clip for clip in clips if clip.parent]
    copies += vocoded_copies(human, work / "copies", COPIES, seed)
    copies += vocoded_copies(more, work / "more-copies", MORE_COPIES, seed)
    return Speech(human + more, tts, copies)


def load_or_make(cache: Path, make: Callable[[], Teacher]) -> Teacher:
    """What `make` gives, kept in a file of our own."""
    if not cache.exists():
        joblib.dump(make(), cache.with_suffix(".part"))
        cache.with_suffix(".part").rename(cache)
    made: Teacher = joblib.load(cache)
    return made


def say(work: Path, **record: float) -> None:
    """A line of history, rounded."""
    line = json.dumps({name: round(value, 4) for name, value in record.items()})
    print(line, flush=True)
    with (work / "history.jsonl").open("a") as history:
        history.write(line + "\n")


def train(model: Training, parts: list[Part], dev: list[Clip], work: Path, seed: int) -> None:
    """Train context network and back-end; renew checkpoint and detector as it goes."""
    average = copy.deepcopy(model)
    context = model.detector.context.network
    train_projection(context)
    parameters = [p for p in model.parameters() if p.requires_grad]
    kept = [context.projection.weight]
    groups = [{"params": [p for p in parameters if p is not kept[0]]}, {"params": kept, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.02)
    first, checkpoint = 0, work / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]

    sums, clock = np.zeros(2), time.monotonic()
    for step in range(first + 1, STEPS + 1):
        for group in optimizer.param_groups:
            group["lr"] = schedule(step)
        model.train()
        losses = model.losses(*batch(parts, step, seed))
        loss = STATISTICS_WEIGHT * losses[0] + losses[1]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 2.0)
        optimizer.step()
        remember = min(MEMORY, (1 + step) / (10 + step))
        with torch.no_grad():
            for kept, now in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
                kept.lerp_(now, 1 - remember) if kept.is_floating_point() else kept.copy_(now)
        sums += losses.detach().numpy()
        if step % EVERY and step < STEPS:
            continue

        average.learned.merge()
        make_opposite(average.detector.backend.classifier)
        found = eer(score(average.detector.eval(), dev), dev)
        minutes = (time.monotonic() - clock) / 60
        say(
            work,
            step=step,
            statistics=sums[0] / EVERY,
            entropy=sums[1] / EVERY,
            dev_eer=found,
            minutes=minutes,
        )
        sums, clock = np.zeros(2), time.monotonic()
        state = {
            "model": model.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
        }
        torch.save(state, checkpoint.with_suffix(".part"))
        checkpoint.with_suffix(".part").rename(checkpoint)
        heads = {"attention_heads": str(CONFIG.attention_heads)}
        part = work / "detector.part"
        save_file(official_state_dict(average.detector), part, heads)
        part.rename(work / "detector.safetensors")


if __name__ == "__main__":
    main()
