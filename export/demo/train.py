"""Train the demo detector further, on CPU: another teacher, more speech, more spoofs.

    python export/demo/train.py --corpus DIR --work DIR --start demo.safetensors

`--start` is the detector of commit c9b9f84, whose own scripts made it from nothing. Encoder and projection
stay as they are; context network and back-end learn what the teacher (teacher.py) answers, and the statistics
that it hears, for a few hundred small steps: more or larger ones forget more than they learn (README.md).
`--work` holds everything: recordings, copies, lessons, the checkpoint (the same command goes on from it),
`history.jsonl`, and `detector.safetensors` under the official key names, renewed as it goes.
"""

import argparse
import copy
import json
import math
import time
from collections.abc import Callable
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
from spectrum import usual_levels
from synthesis import synthetic_speech
from teacher import Teacher
from torch import Tensor, nn
from vocoders import VOCODERS

from nes2net_calib.metrics import equal_error_rate
from nes2net_export.models.detector import Detector
from nes2net_export.source import load_source
from nes2net_export.state_dict import Untold, official_state_dict

COPIES, MORE_COPIES = 6, 2  # of a human clip: of the corpus, of every third of the rest
PARTS = 50  # of lessons
BATCH = 24
STEPS = 400
RATE = 1.5e-4  # of learning, at its peak
WEIGHTS = (1.0, 0.25, 0.5)  # of the losses
SPREAD = 3.0  # of the teacher's log odds
DROPOUT = 0.1  # of what is pooled
MEMORY = 0.995  # of the average over steps that is evaluated and kept
EVERY = 100  # steps between evaluations and checkpoints
FITTED = 3000  # crops that the head for statistics is fitted to before the first step


class Training(nn.Module):
    """The detector, and a linear head that predicts clip statistics while it trains."""

    def __init__(self, detector: Detector, statistics: int) -> None:
        super().__init__()
        self.detector = detector
        self.statistics = nn.Linear(detector.backend.classifier.in_features, statistics)
        detector.requires_grad_(True)  # what is loaded is for inference
        network = detector.context.network
        for kept in (detector.encoder, network.input_norm, network.projection):
            kept.requires_grad_(False)

    def pooled(self, audio: Tensor) -> Tensor:
        """[batch, samples] -> what the classifier sees."""
        with torch.no_grad():
            frames = self.detector.encoder(audio)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.training):
            pooled: Tensor = self.detector.backend.pool(self.detector.context(frames))
        return F.dropout(pooled.float(), DROPOUT, self.training)

    def losses(self, audio: Tensor, log_odds: Tensor, statistics: Tensor) -> Tensor:
        """Squared errors of the statistics and of the log odds, cross-entropy of the class: [3]."""
        pooled = self.pooled(audio)
        logits = self.detector.backend.classifier(pooled)
        target = log_odds.sigmoid()
        entropy = F.cross_entropy(logits, torch.stack([1 - target, target], 1))
        odds = F.mse_loss(logits[:, 1] - logits[:, 0], log_odds) / SPREAD**2
        return torch.stack([F.mse_loss(self.statistics(pooled), statistics), odds, entropy])

    @torch.no_grad()
    def fit_statistics(self, parts: list[Part]) -> None:
        """Start the head at the least squares of what is pooled now."""
        each = FITTED // len(parts)
        heard = [
            self.eval().pooled(torch.from_numpy(part.audio[:each] / np.float32(32768))) for part in parts
        ]
        x = torch.cat(heard).double()
        y = torch.from_numpy(np.concatenate([part.statistics[:each] for part in parts])).double()
        x = torch.cat([x, torch.ones(len(x), 1)], 1)
        fit = torch.linalg.solve(x.T @ x + 1e-2 * len(x) * torch.eye(x.shape[1]), x.T @ y)
        self.statistics.weight.copy_(fit[:-1].T)
        self.statistics.bias.copy_(fit[-1])


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
    """Learning rate: up within 100 steps, then a half cosine down to zero."""
    return RATE * min(step / 100, 0.5 + 0.5 * math.cos(math.pi * step / STEPS))


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
    parser.add_argument("--start", type=Path, required=True, help="detector to go on from")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    dev = read_corpus(args.corpus, "dev")
    speech = gather(args.corpus, args.work, args.seed)
    some = np.concatenate([speech.draw(100, 24_000, [args.seed, 2, i], 0)[0] for i in range(2)])
    levels = usual_levels(some)
    teacher = load_or_make(
        args.work / f"teacher-{args.seed}.joblib", lambda: fit_teacher(speech, levels, args.seed)
    )
    answers = np.concatenate([teacher(repeat(clip.samples(), WINDOW)[None])[0] for clip in dev])
    say(args.work, teacher_dev_eer=eer(answers, dev))

    parts = make_lessons(speech, teacher, PARTS, args.work / "lessons", args.seed)
    detector = load_source(str(args.start), Untold()).detector
    model = Training(detector, parts[0].statistics.shape[1])
    model.fit_statistics(parts)
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
    quick = tuple(name for name in VOCODERS if name != "hifi-gan")
    copies += vocoded_copies(more[1::3], work / "more-copies", MORE_COPIES, seed, quick)
    copies += vocoded_copies(more[::12], work / "neural-copies", 1, seed, ("hifi-gan",))
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
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=0.02)
    first, checkpoint = 0, work / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]

    weights = torch.tensor(WEIGHTS)
    sums, clock = np.zeros(3), time.monotonic()
    for step in range(first + 1, STEPS + 1):
        for group in optimizer.param_groups:
            group["lr"] = schedule(step)
        model.train()
        losses = model.losses(*batch(parts, step, seed))
        loss = losses @ weights
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

        detector = average.detector.eval()
        make_opposite(detector.backend.classifier)
        found = eer(score(detector, dev), dev)
        minutes = (time.monotonic() - clock) / 60
        losses = dict(zip(("statistics", "log_odds", "entropy"), sums / EVERY, strict=True))
        say(work, step=step, **losses, dev_eer=found, minutes=minutes)
        sums, clock = np.zeros(3), time.monotonic()
        state = {
            "model": model.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
        }
        torch.save(state, checkpoint.with_suffix(".part"))
        checkpoint.with_suffix(".part").rename(checkpoint)
        heads = {"attention_heads": str(detector.config.attention_heads)}
        part = work / "detector.part"
        save_file(official_state_dict(detector), part, heads)
        part.rename(work / "detector.safetensors")


if __name__ == "__main__":
    main()
