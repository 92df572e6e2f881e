"""More human speech: the rest of what the speakers of train recorded for the same Debian packages.

The corpus takes a few dozen clips a speaker; the packages hold hundreds. Speakers of dev and eval are in
other folders or files and are never read. Needs apt-get, dpkg-deb and ffmpeg.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
from augment import RATE, Audio
from data import Clip
from numpy.typing import NDArray

MOST = 400  # clips a speaker
SHORTEST = 1.5  # seconds; shorter words are joined
QUIET = 10 ** (-45 / 20)  # of a file's peak: its edges

ASTERISK = "usr/share/asterisk/sounds"
TUXPAINT = "usr/share/tuxpaint/stamps/**"
KLETTRES = "usr/share/klettres"
KTUBERLING = "usr/share/ktuberling/sounds"
# package -> speaker of corpus.csv -> its files
SPEAKERS = {
    "asterisk-core-sounds-it-g722": {"asterisk_it_carlo": f"{ASTERISK}/it_IT_m_Carlo/**/*.g722"},
    "asterisk-core-sounds-ru-g722": {"asterisk_ru_ivrvoice": f"{ASTERISK}/ru_RU_f_IvrvoiceRU/**/*.g722"},
    "asterisk-prompt-fr-armelle": {"asterisk_fr_armelle": f"{ASTERISK}/fr/**/*.gsm"},
    "gcin-voice": {"gcin_chulo": "usr/share/gcin-voice/ogg/*/5.ogg"},
    "klettres-data": {
        f"klettres_{code}": f"{KLETTRES}/{code}/*/*"
        for code in ("ar", "cs", "da", "en", "en_GB", "fr", "he", "nds", "ru")
    },
    "ktuberling-data": {
        f"ktuberling_{code}": f"{KTUBERLING}/{code}/*"
        for code in ("ca", "da", "en", "fi", "fr", "nds", "ru", "sr", "wa")
    },
    "tuxpaint-stamps-default": {
        "tuxpaint_en": f"{TUXPAINT}/*_desc.ogg",
        **{f"tuxpaint_{code}": f"{TUXPAINT}/*_desc_{code}.ogg" for code in ("be", "ca", "da", "fr", "ru")},
    },
}
NOT_SPEECH = ("beep", "silence", "tt-", "ascending", "descending", "confbridge-join", "confbridge-leave")


def more_speech(folder: Path, corpus: list[Clip]) -> list[Clip]:
    """Clips of 16 kHz of the speakers above; packages and decoded audio are kept in `folder`."""
    known = {clip.speaker for clip in corpus if clip.bonafide}
    clips = []
    for package, speakers in SPEAKERS.items():
        root = _unpacked(package, folder)
        for speaker, pattern in speakers.items():
            if speaker not in known:
                raise ValueError(f"{speaker}: not a speaker of this split")
            cache = folder / f"{speaker}.npz"
            if not cache.exists():
                files = [
                    path
                    for path in sorted(root.glob(pattern))
                    if path.is_file() and not path.name.startswith(NOT_SPEECH)
                ]
                made = {str(i): audio for i, audio in enumerate(_joined(_decoded(files)))}
                np.savez(cache, allow_pickle=False, **made)
            with np.load(cache) as made:
                clips += [Clip(f"{speaker}/{i}", made[i], True, "-", speaker, "") for i in list(made)[:MOST]]
    return clips


def _unpacked(package: str, folder: Path) -> Path:
    root = folder / package
    if not root.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", package], cwd=folder, check=True, capture_output=True)
        (archive,) = folder.glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, root], check=True)
        archive.unlink()
    return root


def _decoded(files: list[Path]) -> Iterator[Audio]:
    """Each file at 16 kHz without its quiet edges; what is shorter than 0.15 s is left out."""
    for file in files:
        x = _decode(file)
        loud = np.flatnonzero(np.abs(x) > QUIET * np.abs(x).max(initial=1e-3))
        if len(loud) and loud[-1] - loud[0] > 0.15 * RATE:
            yield x[max(loud[0] - RATE // 20, 0) : loud[-1] + RATE // 10]


def _decode(file: Path) -> Audio:
    """Mono at 16 kHz; empty where it can't be read."""
    if file.suffix == ".g722":  # which libsndfile does not know
        command = ["ffmpeg", "-v", "error", "-f", "g722", "-i", file, "-f", "f32le", "-"]
        return np.frombuffer(subprocess.run(command, capture_output=True).stdout, np.float32)
    bare = {"format": "RAW", "subtype": "GSM610", "samplerate": 8000, "channels": 1}
    try:
        audio, rate = soundfile.read(file, dtype="float32", **(bare if file.suffix == ".gsm" else {}))
    except soundfile.LibsndfileError:
        return np.zeros(0, np.float32)
    x: Audio = audio if audio.ndim == 1 else audio.mean(1)
    return soxr.resample(x, rate, RATE) if rate != RATE else x


def _joined(pieces: Iterator[Audio]) -> Iterator[NDArray[np.int16]]:
    """Short pieces strung together until they reach SHORTEST."""
    waiting: list[Audio] = []
    for piece in pieces:
        waiting.append(piece * np.float32(0.7 / max(np.abs(piece).max(), 1e-3)))
        if sum(map(len, waiting)) >= SHORTEST * RATE:
            yield (np.concatenate(waiting) * 32767).astype(np.int16)
            waiting = []
