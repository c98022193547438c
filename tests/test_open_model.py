"""Models from elsewhere as their user meets them: opened, looked at, and made to speak."""

import json
import random
from contextlib import chdir

import numpy as np
import pytest

import minicircuits as mc
from minicircuits import files
from minicircuits.cli import main
from minicircuits.files import FileError
from minicircuits.notation import InputError
from minicircuits.training.model_file import PRETRAINED
from minicircuits.training.tokenizer import train_tokenizer
from minicircuits.training.vocabulary import Vocabulary
from tests.draws import random_weights

SIZES = {"n_layers": 1, "d_vocab": 12, "n_ctx": 8}
CFG = {"n_layers": 1, "d_vocab": 12, "n_ctx": 8, "attn_only": True, "normalization_type": None,
       "positional_embedding_type": "shortformer"}


def weights(**sizes):
    return random_weights(np.random.default_rng(0), **{**SIZES, **sizes})


def same(opened, desired):
    assert type(opened) is type(desired) and opened.positions == desired.positions
    for (name, actual), (_, W) in zip(opened.items(), desired.items(), strict=True):
        np.testing.assert_array_equal(actual, W, name, strict=True)
    return True


def state_dict(path, model=None, cfg=None, name="config.json"):
    """A file with TransformerLens's names, and its config beside it."""
    files.write_arrays(path, mc.to_transformer_lens(model or weights()))
    if cfg is not None:
        (path.parent / name).write_text(json.dumps(cfg))
    return path


def test_our_own_files_are_opened(tmp_path):
    tokenizer = train_tokenizer(b"", 257)
    own = weights(d_vocab=257)
    mc.save_model(tmp_path / "model.npz", own, tokenizer, {"seed": 3})
    model = mc.open_model(tmp_path / "model.npz")
    assert same(model.weights, own) and model[1:] == (tokenizer, {"seed": 3})
    mc.save(tmp_path / "weights.npz", weights())
    model = mc.open_model(tmp_path / "weights.npz", "shortformer")
    assert same(model.weights, weights()) and isinstance(model.tokenizer, Vocabulary)
    assert model.tokenizer.start is None and model.tokenizer.show(11) == "#11"
    assert model.metadata == {"origin": "The weights in weights.npz"}
    assert mc.open_model(str(PRETRAINED)).weights.d_vocab == 1024


def test_our_names_without_positions(tmp_path):
    np.savez(tmp_path / "w.npz", **dict(weights().items()))
    with pytest.raises(InputError, match="'w.npz' does not say where positions are added: choose"):
        mc.open_model(tmp_path / "w.npz")
    assert same(mc.open_model(tmp_path / "w.npz", "shortformer").weights, weights())
    np.savez(tmp_path / "w.npz", **dict(weights().items()), mask=np.zeros(2))
    with pytest.raises(FileError, match="must hold weights; got also mask"):
        mc.open_model(tmp_path / "w.npz", "shortformer")


@pytest.mark.parametrize("positions", ["shortformer", "standard"])
def test_a_state_dict_needs_positions(tmp_path, positions):
    own = weights(positions=positions)
    path = state_dict(tmp_path / "theirs.npz", own)
    model = mc.open_model(path, positions, start=3)
    assert same(model.weights, own) and model.tokenizer.start == 3
    assert model.metadata == {"origin": "The state dict in theirs.npz, taken to have no "
                              "norms, since no cfg is beside it"}
    with pytest.raises(FileError, match="theirs.npz': positions must .*theirs.json or config.json"):
        mc.open_model(path)


@pytest.mark.parametrize("name", ["theirs.json", "config.json"])
def test_a_config_beside_the_weights_is_read(tmp_path, name):
    path = state_dict(tmp_path / "theirs.npz", cfg=CFG, name=name)
    model = mc.open_model(path)
    assert same(model.weights, weights())
    assert model.metadata == {"origin": f"The state dict in theirs.npz, with {name}"}
    with pytest.raises(FileError, match="positions must be 'shortformer', as the cfg says"):
        mc.open_model(path, "standard")
    (tmp_path / name).write_text(json.dumps({**CFG, "attn_only": False}))
    with pytest.raises(FileError, match="theirs.npz': the model has MLPs"):
        mc.open_model(path)
    for content, message in ("[]", "cfg must be"), ("{", f"{name}' must be strict JSON"):
        (tmp_path / name).write_text(content)
        with pytest.raises(FileError, match=f"theirs.npz': .*{message}"):
            mc.open_model(path)


def test_the_weights_own_config_comes_first(tmp_path):
    path = state_dict(tmp_path / "theirs.npz", cfg={**CFG, "attn_only": False})
    state_dict(tmp_path / "other.npz", cfg=CFG, name="theirs.json")
    assert same(mc.open_model(path).weights, weights())


def test_normalized_weights_are_saved_and_opened(tmp_path):
    cfg = {**CFG, "normalization_type": "LNPre", "eps": 1e-5}
    normalized = mc.open_model(state_dict(tmp_path / "theirs.npz", cfg=cfg)).weights
    mc.save(tmp_path / "folded.npz", normalized)
    back = mc.open_model(tmp_path / "folded.npz").weights
    assert same(back, normalized)
    assert (back.n_normalized, back.eps) == (normalized.n_normalized, 1e-5)
    assert same(mc.load(tmp_path / "folded.npz"), normalized)
    arrays = files.read_arrays(tmp_path / "folded.npz")
    for change in ({"eps": None}, {"n_normalized": None}, {"n_normalized": np.array(5.0)},
                   {"eps": np.zeros(2)}, {"n_normalized": np.array(99)},
                   {"eps": np.array(np.nan)}):
        files.write_arrays(tmp_path / "bad.npz", {
            name: array for name, array in {**arrays, **change}.items() if array is not None},
            force=True)
        for read in mc.load, mc.open_model:
            with pytest.raises(FileError, match="bad.npz' must hold weights: "):
                read(tmp_path / "bad.npz")


@pytest.mark.parametrize("options, message", [
    ({"positions": "standard"}, "has shortformer positions; got 'standard'"),
    ({"tokens": "names.json"}, "has a tokenizer of its own: leave out tokens, start"),
    ({"start": 0}, "has a tokenizer of its own")])
def test_what_a_model_file_says_itself(options, message):
    with pytest.raises(InputError, match=f"'pretrained.npz' {message}"):
        mc.open_model(PRETRAINED, **options)


def test_files_with_no_model(tmp_path):
    mc.save(tmp_path / "weights.npz", weights())
    with pytest.raises(InputError, match="weights.npz' has shortformer positions; got 'none'"):
        mc.open_model(tmp_path / "weights.npz", "none")
    files.write_arrays(tmp_path / "other.npz", {"a": np.zeros(2)})
    with pytest.raises(FileError, match="other.npz': .*a"):
        mc.open_model(tmp_path / "other.npz", "standard")
    with pytest.raises(FileError, match="cannot read .*missing.npz'"):
        mc.open_model(tmp_path / "missing.npz")
    for name in ("model.pt", "model.PTH"):
        with pytest.raises(FileError, match="may be a pickle, .*save the state dict as .safetens"):
            mc.open_model(tmp_path / name)


def test_only_input_errors_escape_whatever_a_config_says(tmp_path):
    """Values of every JSON type in the place of every setting."""
    path, rng, taken = state_dict(tmp_path / "theirs.npz"), random.Random(0), 0
    settings = [*CFG, "eps", "n_heads", "d_head", "d_model", "attn_scale", "final_rms",
                "use_attn_scale", "n_key_value_heads", "attn_scores_soft_cap", "attention_dir"]
    values = [None, True, False, 0, -1, 3, 1e-5, 10 ** 30, "", "LN", "RMS", "standard", [], [1],
              {}, {"a": 1}]
    for _ in range(600):
        cfg = {**CFG, "eps": 1e-5}
        for name in rng.sample(settings, rng.randint(1, 2)):
            cfg[name] = rng.choice(values)
        (tmp_path / "config.json").write_text(json.dumps(cfg))
        try:
            mc.open_model(path)
            taken += 1
        except InputError as error:
            assert len(str(error).splitlines()) == 1
    assert 20 < taken < 500


# The command line

def ran(capsys, *arguments):
    """What a command printed, and its status."""
    status = main([*map(str, arguments)])
    out, err = capsys.readouterr()
    return out if status == 0 else err, status


@pytest.fixture
def folder(tmp_path):
    mc.save(tmp_path / "w.npz", weights(n_layers=2, n_heads=2, d_vocab=60, n_ctx=96))
    (tmp_path / "words.json").write_text(json.dumps(["<s>", *(f"word{n}" for n in range(30))]))
    with chdir(tmp_path):
        yield tmp_path


def test_a_text_is_continued(folder, capsys):
    out, status = ran(capsys, "sample", "def open(", "--length", "5")
    assert status == 0 and out.startswith("def open(") and len(out) > len("def open(\n")
    assert (out, 0) == ran(capsys, "sample", "def open(", "--length", "5")
    assert (out, 0) != ran(capsys, "sample", "def open(", "--length", "5", "--seed", 1)


def test_models_without_names_and_with_words_speak_too(folder, capsys):
    out, status = ran(capsys, "sample", "#5 7", "w.npz", "--length", 20, "--temperature", 0)
    words = out.split()
    assert status == 0 and words[:2] == ["#5", "7"] and len(words) == 22 and out[-1] == "\n"
    named, status = ran(capsys, "sample", "word4 word6", "w.npz", "--length", 20, "--temperature",
                        0, "--tokens", "words.json", "--start", "none")
    assert status == 0 and named.split()[2:] == [
        "<s>" if word == "#0" else f"word{int(word[1:]) - 1}" if int(word[1:]) < 31 else word
        for word in words[2:]]
    assert ran(capsys, "sample", "", "w.npz", "--start", 3, "--length", 2)[0].count("#") == 2


@pytest.mark.parametrize("arguments, message", [
    (["", "w.npz"], "at least one id, for a model without a start token"),
    (["word4", "w.npz"], "must be ids up to #59, with spaces between"),
    (["#60", "w.npz"], "got '#60'"), (["#5", "w.npz", "--start", "60"], "start must be"),
    (["#5", "w.npz", "--tokens", "missing.json"], "cannot read 'missing.json'"),
    (["a", "--tokens", "words.json"], "'pretrained.npz' has a tokenizer of its own")])
def test_what_sample_refuses(folder, capsys, arguments, message):
    err, status = ran(capsys, "sample", *arguments)
    assert status == 2 and message in err and err.count("\n") == 1


def test_bytes_that_are_no_character_are_shown_and_control_characters_too(tmp_path, capsys):
    """A model that says bytes one after the other: a quotation mark, ESC, half a character."""
    bigram = weights(n_layers=0, d_vocab=257, d_model=257, n_ctx=2)
    bigram.W_U[:], bigram.W_E[:] = 0, np.eye(257)
    said = [256, *"’".encode(), 0x1b, *b"\n", 0xf0]
    bigram.W_U[said[1:], said[:-1]] = 1
    mc.save_model(tmp_path / "m.npz", bigram, train_tokenizer(b"", 257), {})
    out, _ = ran(capsys, "sample", "", tmp_path / "m.npz", "--temperature", 0, "--length", 6)
    assert out == "’\\x1b\n\\xf0\n"
    bigram.W_U[256, 0xf0] = 1                                # START, which stands for no bytes
    mc.save_model(tmp_path / "m.npz", bigram, train_tokenizer(b"", 257), {}, force=True)
    out, _ = ran(capsys, "sample", "\x1b\n", tmp_path / "m.npz", "--temperature", 0, "--length", 2)
    assert out == "\\x1b\n\\xf0<START>\n"
    out, _ = ran(capsys, "sample", "\udce9\udce2\udc80", tmp_path / "m.npz", "--temperature", 0,
                 "--length", 1)
    assert out == "\\xe9’\n"                         # half a character, which the model completes


def test_heads_of_weights_without_a_tokenizer(folder, capsys):
    out, status = ran(capsys, "heads", "w.npz")
    assert status == 0 and "random tokens" in out
    (folder / "text").write_text("word1 #3 word2\n" * 100)
    mc.save("one_layer.npz", weights(d_vocab=60, n_ctx=20))
    out, status = ran(capsys, "heads", "--text", "text", "one_layer.npz", "--tokens", "words.json")
    assert status == 0 and "\nThe weights in one_layer.npz, on text: 300 tokens" in out
    assert "word2" in out
