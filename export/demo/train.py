"""Train the demo detector from scratch on CPU: a small wav2vec 2.0-shaped front-end, a Nes2Net-X back-end.

    python export/demo/train.py --corpus DIR --work DIR [--minutes M]

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
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from augment import Audio
from data import WINDOW, Batches, Clip, read_corpus, repeat, vocoded_copies
from safetensors.torch import save_file
from spectral_start import CHANNELS, start_as_cepstra
from spectrum import usual_levels
from teacher import STATISTICS, Lessons, Teacher
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

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
PAIRS = 5  # of labelled crops of 1.5 s in a batch, fewer when crops are longer; twice as many scrambled ones
TEACHER_PAIRS = 8  # in a batch of the teacher
ROUNDS = 3  # of vocoded copies
RATE = 1e-3  # of learning, at its peak
STATISTICS_WEIGHT = 1.0  # of their squared error beside classification
TEACHER_STEPS = 800  # batches that the teacher sees
MEMORY = 0.998  # of the average over steps that is evaluated and kept
MAX_STEPS = 10**7


class Training(nn.Module):
    """The detector, and a linear head that predicts clip statistics while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.detector = Detector(CONFIG)
        self.statistics = nn.Linear(self.detector.backend.classifier.in_features, STATISTICS)

    def losses(self, audio: Tensor, target: Tensor, statistics: Tensor) -> Tensor:
        """Squared error of the statistics, cross-entropy of the class: [2]."""
        with torch.no_grad():
            frames = self.detector.encoder(audio)
        pooled = self.detector.backend.pool(self.detector.context(frames))
        logits = self.detector.backend.classifier(pooled)
        entropy = F.cross_entropy(logits, torch.stack([1 - target, target], 1))
        return torch.stack([F.mse_loss(self.statistics(pooled), statistics), entropy])

    def computed(self) -> Iterator[nn.Parameter]:
        """Parameters that are computed, not trained."""
        context = self.detector.context.network
        for part in (self.detector.encoder, context.input_norm, context.projection):
            yield from part.parameters()


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


def schedule(progress: float) -> float:
    """Learning rate: up within 2 % of the time, then a half cosine down to zero."""
    return RATE * min(progress / 0.02, 0.5 + 0.5 * math.cos(math.pi * progress))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True, help="folder of corpus.csv and its audio")
    parser.add_argument("--work", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument("--minutes", type=float, default=50, help="training time; the schedule's length")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    torch.set_num_threads(1)  # the second core prepares batches
    torch.manual_seed(args.seed)
    train, dev = read_corpus(args.corpus, "train"), read_corpus(args.corpus, "dev")
    copies = vocoded_copies(train, args.work / "vocoded", ROUNDS, args.seed)
    batches = Batches(train, copies, MAX_STEPS, PAIRS, args.seed)
    speech = np.concatenate([batches[i][0].numpy()[:, :24_000] for i in range(16)])
    levels = usual_levels(speech)
    teacher = Teacher(Batches(train, copies, TEACHER_STEPS, TEACHER_PAIRS, args.seed + 1), levels, args.seed)
    answers = np.concatenate([teacher(repeat(clip.samples(), WINDOW)[None])[0] for clip in dev])
    print(json.dumps({"teacher_dev_eer": round(eer(answers, dev), 4)}), flush=True)

    model = Training()
    left = start_as_cepstra(model.detector, levels, speech)
    print(json.dumps({"cepstra_variance_left": round(left, 4)}), flush=True)
    for p in model.computed():
        p.requires_grad_(False)
    average = copy.deepcopy(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=0.02)

    step, minutes = 0, 0.0
    checkpoint = args.work / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["rng"])
        step, minutes = saved["step"], saved["minutes"]

    loader = DataLoader(
        Subset(Lessons(batches, teacher), range(step, MAX_STEPS)),
        batch_size=None,
        num_workers=1,
        prefetch_factor=6,
    )
    sums, since, saved_at = np.zeros(2), 0, minutes
    clock = time.monotonic()
    for audio, target, statistics in loader:
        progress = minutes / args.minutes
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = schedule(progress)
        model.train()
        losses = model.losses(audio, target, statistics)
        loss = STATISTICS_WEIGHT * losses[0] + losses[1]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 2.0)
        optimizer.step()
        step += 1
        remember = min(MEMORY, (1 + step) / (10 + step))
        with torch.no_grad():
            for kept, now in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
                kept.lerp_(now, 1 - remember) if kept.is_floating_point() else kept.copy_(now)
        sums, since = sums + losses.detach().numpy(), since + 1
        minutes += (time.monotonic() - clock) / 60
        clock = time.monotonic()

        if minutes - saved_at >= 2 or minutes >= args.minutes:
            make_opposite(average.detector.backend.classifier)
            record = {
                "step": step,
                "minutes": round(minutes, 2),
                "statistics": round(sums[0] / since, 4),
                "entropy": round(sums[1] / since, 4),
                "dev_eer": round(eer(score(average.detector.eval(), dev), dev), 4),
            }
            print(json.dumps(record), flush=True)
            with (args.work / "history.jsonl").open("a") as history:
                history.write(json.dumps(record) + "\n")
            state = {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "rng": torch.get_rng_state(),
                "step": step,
                "minutes": minutes,
            }
            torch.save(state, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").rename(checkpoint)
            heads = {"attention_heads": str(CONFIG.attention_heads)}
            part = args.work / "detector.part"
            save_file(official_state_dict(average.detector), part, heads)
            part.rename(args.work / "detector.safetensors")
            sums, since, saved_at, clock = np.zeros(2), 0, minutes, time.monotonic()


if __name__ == "__main__":
    main()
