"""The recipes of the oracle's README, each run where its tool is there."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minicircuits as mc
from minicircuits.cli import main
from minicircuits.testing import check
from minicircuits.testing.vectors import find

README = Path(mc.__file__).with_name("testing") / "README.md"
RECIPES = dict(re.findall(r"```(python torch|python merged|python jax|c|rust|js)\n(.*?)```",
                          README.read_text(encoding="utf-8"), re.S))
GPT = '''
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, n_heads, d_model):
        super().__init__()
        self.n_heads = n_heads
        self.c_attn = nn.Linear(d_model, 3 * d_model, bias=False)
        self.c_proj = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x):
        B, T, D = x.shape
        q, k, v = (y.view(B, T, self.n_heads, -1).transpose(1, 2)
                   for y in self.c_attn(x).split(D, dim=2))
        z = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.c_proj(z.transpose(1, 2).reshape(B, T, D))

class GPT(nn.Module):
    def __init__(self, n_layers, n_heads, d_model, d_vocab, n_ctx):
        super().__init__()
        self.wte = nn.Embedding(d_vocab, d_model)
        self.wpe = nn.Embedding(n_ctx, d_model)
        self.h = nn.ModuleList(Block(n_heads, d_model) for _ in range(n_layers))
        self.lm_head = nn.Linear(d_model, d_vocab, bias=False)

    def forward(self, tokens):
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.h:
            x = block(x)
        return self.lm_head(x)
'''
JAX = '''
import jax
import jax.numpy as jnp
jax.config.update("jax_enable_x64", True)

def forward(W, positions, tokens):
    T, x, p = len(tokens), W["W_E"].T[tokens], 0
    if positions != "none":
        p = W["W_pos"].T[:T]
    if positions == "standard":
        x, p = x + p, 0
    patterns = []
    for Q, K, V, O in zip(W["W_Q"], W["W_K"], W["W_V"], W["W_O"]):
        scores = (x + p) @ Q.mT @ ((x + p) @ K.mT).mT / Q.shape[1] ** 0.5
        patterns.append(jax.nn.softmax(jnp.where(jnp.tri(T, dtype=bool), scores, -jnp.inf)))
        x = x + (patterns[-1] @ (x @ V.mT) @ O.mT).sum(0)
    shape = 0, W["W_Q"].shape[1], T, T
    return {"pattern": jnp.array(patterns).reshape(-1, *shape[1:]), "logits": x @ W["W_U"].T}
'''
# Programs that read and write by the recipes: logits = W_U W_E t, right without layers.
MAINS = {
    "c": '#include <stdio.h>\n#include <stdlib.h>\n%s' + '''
int main(int n, char **at) {
    double *E = load(at[1], "W_E"), *U = load(at[1], "W_U"), logits[48] = {0};
    int *tokens = (int *) load(at[1], "tokens");
    for (int i = 0; i < 6; i++) for (int v = 0; v < 8; v++) for (int d = 0; d < 4; d++)
        logits[i * 8 + v] += U[v * 4 + d] * E[d * 8 + tokens[i]];
    save(at[2], "logits", "2, 3, 8", logits, 48);
    return load(at[1], "nothing") != NULL;
}''',
    "rust": '%s' + '''
fn main() {
    let at: Vec<String> = std::env::args().collect();
    let (e, u) = (load(&at[1], "W_E"), load(&at[1], "W_U"));
    let data = fs::read(format!("{}/tokens.npy", at[1])).unwrap();
    let t: Vec<usize> = data[data.len() - 24..].chunks_exact(4)
        .map(|c| i32::from_le_bytes(c.try_into().unwrap()) as usize).collect();
    let logits: Vec<f64> = (0..48).map(|n| (0..4).map(
        |d| u[n % 8 * 4 + d] * e[d * 8 + t[n / 8]]).sum()).collect();
    save(&at[2], "logits", "2, 3, 8", &logits);
}''',
    "js": '%s' + '''
const [folder, out] = process.argv.slice(2), t = load(folder, "tokens");
const E = load(folder, "W_E"), U = load(folder, "W_U"), logits = new Float64Array(48);
logits.forEach((_, n) => { for (let d = 0; d < 4; d++)
    logits[n] += U[n % 8 * 4 + d] * E[d * 8 + t[Math.floor(n / 8)]]; });
save(out, "logits", "2, 3, 8", logits);
'''}
TOOLS = {"c": ("cc", "mine.c", "cc mine.c -o mine", "./mine"),
         "rust": ("rustc", "mine.rs", "rustc --edition 2021 mine.rs", "./mine"),
         "js": ("node", "mine.mjs", "true", "node mine.mjs")}


def test_every_recipe_has_at_most_15_lines():
    assert len(RECIPES) == 6
    for name, text in RECIPES.items():
        assert len([line for line in text.splitlines() if line.strip()]) <= 15, name


@pytest.mark.parametrize("language", TOOLS)
def test_other_languages_by_files(language, tmp_path, monkeypatch, capsys):
    tool, name, build, run = TOOLS[language]
    if not shutil.which(tool):
        pytest.skip(f"there is no {tool} here")
    (tmp_path / name).write_text(MAINS[language].replace("%s", RECIPES[language]))
    monkeypatch.chdir(tmp_path)
    subprocess.run(build.split(), check=True, capture_output=True)
    assert main(["check", "--program", f"{run} {{case}} {{out}}", "--case", "no-layers"]) == 0
    assert "ok    no-layers: 1 tensor right" in capsys.readouterr().out


def test_heads_merged_by_one_linear_map():
    recipe, vector = {}, find("ordinary-shortformer")
    exec(RECIPES["python merged"], recipe)
    reads, out = recipe["merged"](vector.weights)
    W = {name.removeprefix("d"): array for name, array in recipe["apart"](
        reads, out, vector.weights.n_heads).items()}
    assert all(np.array_equal(array, getattr(vector.weights, name)) for name, array in W.items())
    y = vector.weights.W_E.T[vector.tokens] + vector.weights.W_pos.T[:vector.tokens.shape[1]]
    q = (y @ reads[0].T)[..., :6].reshape(2, 3, 2, 3).swapaxes(1, 2)       # (b, h, i, e)
    assert check(vector, {"q": np.array([q, vector.reference.expected["q", 1]])})


def first_check(tmp_path, mine, recipe):
    (tmp_path / "mine.py").write_text(mine)
    (tmp_path / "first.py").write_text(recipe + "\nimport time; print(time.process_time())")
    return subprocess.run([sys.executable, "first.py"], cwd=tmp_path, capture_output=True,
                          text=True, env={"PYTHONPATH": str(README.parents[2]), "PATH": ""})


@pytest.mark.extra
def test_a_gpt2_in_pytorch_and_its_untransposed_heads(tmp_path):
    """Under ten lines but for imports; under ten seconds of a processor, in a fresh process."""
    lines = [line for line in RECIPES["python torch"].splitlines() if line.strip()]
    assert len([line for line in lines if "import" not in line]) < 10
    done = first_check(tmp_path, GPT, RECIPES["python torch"])
    assert done.returncode == 0 and "cases, 0 wrong" in done.stdout, done.stderr
    assert float(done.stdout.split()[-1]) < 10
    wrong = GPT.replace("z.transpose(1, 2).reshape", "z.reshape")
    done = first_check(tmp_path, wrong, RECIPES["python torch"])
    assert "  matches `heads_merged_untransposed`" in done.stderr
    assert "would pass" not in done.stderr


@pytest.mark.extra
@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="there is no JAX here")
def test_jax_with_its_batch_mapped(tmp_path):
    done = first_check(tmp_path, JAX, RECIPES["python jax"])
    assert done.returncode == 0, done.stderr
