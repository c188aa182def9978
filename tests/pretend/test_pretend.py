"""The pretend device must give the CPU's numbers, complain as CUDA does, and count every wait."""

import io
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tests.pretend.build import CannotBuild, build
from tests.toys import VOCABULARY, toy_hf

DEVICE = "pretend"


def written(a, b):
    """In place, through views and through a mask."""
    a = a.clone()
    a[:, 0] = b[:, 0]
    a[a > 1] = 0.5
    a[:, [1, 2]] += 1
    a.view(-1)[3:5].mul_(b.view(-1)[:2])
    return a


def shapes(a, b):
    views = (a.mT.reshape(4, -1), a.unfold(1, 2, 2), a.expand(2, 4, 6, 8), a.flip(1), a.roll(1, 0))
    parts = (torch.cat([a, b], 1), torch.stack([a, b]), *a.split(4, -1), *a.unbind(0))
    return (*views, *parts, a.diagonal(dim1=1, dim2=2), a.repeat_interleave(2, 0), a.tril())


def reductions(a, _):
    over = (a.sum(), a.mean(1), a.std(-1), a.norm(dim=-1), a.amax(-1), a.logsumexp(-1))
    return (*over, a.cumsum(1), a.prod(-1), a.median(-1).values, a.quantile(0.3), a.argmax(-1))


def indexed(a, b):
    i = torch.tensor([[0, 3, 1], [2, 2, 5], [4, 0, 1], [1, 5, 3]], device=a.device)
    rows = a[..., 0]
    taken = (rows.gather(1, i), a.index_select(1, i[0]), a[i[:, 0] % 4, i[:, 1]], a[a > 0])
    put = (rows.scatter(1, i[:1], 2.0), rows.scatter_add(1, i, b[:, :3, 0]))
    added = a.index_add(1, i[0], b[:, :3]), a.clone().index_put((i[0] % 4,), b[:3])
    return (*taken, *put, *added, F.embedding(i, a[0]), *i.unique(return_counts=True))


def batched_gradients(a, _):
    out = (a[0] ** 3).sum(0)
    directions = torch.eye(8, device=a.device)
    return torch.autograd.grad(out, a, directions, is_grads_batched=True, create_graph=True)[0]


OPERATORS = {
    "products": lambda a, b: (F.linear(a, b[0]), a @ b.mT, torch.einsum("bpd,bqd->bpq", a, b)),
    "norms": lambda a, b: (F.layer_norm(a, (8,), b[0, 0]), F.rms_norm(a, (8,), b[0, 0])),
    "softmax": lambda a, b: (a.softmax(-1), a.log_softmax(-1), F.cross_entropy(a[0], b[0])),
    "order": lambda a, b: (*a.topk(3, -1), *a.sort(-1)),
    "choice": lambda a, b: (torch.where(a > 0, a, b), a.masked_fill(b > 0, -1.0)),
    "pointwise": lambda a, b: (a.exp(), F.silu(a), F.gelu(a), a.clamp(-1, 1), a**2, a.tanh()),
    "low precision": lambda a, b: F.linear(a.bfloat16(), b[0].bfloat16()).float(),
    "checkpoint": lambda a, b: checkpoint(F.linear, a, b[0], use_reentrant=False),
    "written": written,
    "shapes": shapes,
    "reductions": reductions,
    "indexed": indexed,
    "batched gradients": batched_gradients,
}


def values_and_gradients(f, device: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(4, 6, 8, generator=generator).to(device) for _ in range(2)]
    inputs = [x.requires_grad_() for x in inputs]
    out = f(*inputs)
    out = out if isinstance(out, tuple) else (out,)
    assert {t.device.type for t in out} == {device}
    answers = [t for t in out if t.requires_grad]
    loss = sum(
        (t * torch.linspace(0.5, 1.5, t.numel(), device=device).view_as(t)).sum() for t in answers
    )
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True) if answers else ()
    return [t.detach().cpu() for t in (*out, *gradients) if t is not None]


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_and_its_gradient_equal_the_cpus(pretend, name):
    here, there = (values_and_gradients(OPERATORS[name], d) for d in ("cpu", DEVICE))
    assert len(here) == len(there)
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


def test_a_qwen_gives_the_cpus_loss_logits_gradients_and_text(pretend):
    tokens = torch.randint(1, VOCABULARY, (3, 10), generator=torch.Generator().manual_seed(0))
    found = []
    for device in ("cpu", DEVICE):
        model = toy_hf("qwen3", torch.float32).to(device)
        at = tokens.to(device)
        out = model(input_ids=at, labels=at)
        out.loss.backward()
        text = model.generate(at, max_new_tokens=3, do_sample=False, pad_token_id=0)
        gradients = [p.grad for p in model.parameters()]
        found.append([t.detach().cpu() for t in (out.loss, out.logits, text, *gradients)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("optimiser", [torch.optim.Adam, torch.optim.SGD])
@pytest.mark.parametrize("how", [{}, {"foreach": True}, {"fused": True}])
def test_an_optimiser_takes_the_cpus_steps(pretend, optimiser, how):
    found = []
    for device in ("cpu", DEVICE):
        torch.manual_seed(1)
        layer = torch.nn.Linear(8, 8).to(device)
        steps = optimiser(layer.parameters(), lr=0.1, **how)
        for _ in range(3):
            steps.zero_grad()
            layer(torch.linspace(-1, 1, 8).to(device)).pow(2).sum().backward()
            steps.step()
        found.append(layer.weight.detach().cpu())
    torch.testing.assert_close(*found, rtol=0, atol=1e-6)


def test_a_view_shares_memory_and_a_file_comes_back_to_its_device(pretend):
    base = torch.zeros(3, 4, device=DEVICE)
    base.t()[1:].add_(1)
    assert base.cpu().tolist() == [[0, 1, 1, 1]] * 3
    file = io.BytesIO()
    torch.save(base, file)
    file.seek(0)
    assert torch.load(file).device.type == DEVICE
    file.seek(0)
    assert torch.load(file, map_location="cpu").is_cpu


def test_the_device_draws_from_a_stream_of_its_own(pretend):
    torch.manual_seed(3)
    first = torch.rand(4, device=DEVICE)
    torch.manual_seed(3)
    torch.rand(9)
    assert torch.equal(first, torch.rand(4, device=DEVICE))
    with pytest.raises(RuntimeError, match="enerator"):
        torch.randn(3, generator=torch.Generator(), device=DEVICE)


MIXED = {
    "sum": lambda d, h, i: d + h,
    "sum from the left": lambda d, h, i: h + d,
    "in place": lambda d, h, i: h.add_(d),
    "product": lambda d, h, i: d @ h.T,
    "scalar of the device": lambda d, h, i: h * d.sum(),
    "joined": lambda d, h, i: torch.cat([d, h]),
    "linear": lambda d, h, i: F.linear(d, h),
    "norm": lambda d, h, i: F.layer_norm(d, (4,), h[0]),
    "masked": lambda d, h, i: d.masked_fill(h > 0, 0.0),
    "where": lambda d, h, i: torch.where(h > 0, d, d),
    "gathered": lambda d, h, i: d.gather(0, i[None]),
    "selected": lambda d, h, i: d.index_select(0, i),
    "looked up": lambda d, h, i: F.embedding(i, d),
    "host's rows by the device's index": lambda d, h, i: h[i.to(DEVICE)],
    "put": lambda d, h, i: d.index_put((i.to(DEVICE),), h[:2]),
    "equal": lambda d, h, i: torch.equal(d, h),
    "labels": lambda d, h, i: F.cross_entropy(d, torch.tensor([0, 1, 2])),
    "two scalars of the host": lambda d, h, i: torch.addcmul(d, h[0, 0], h[0, 1]),
}


@pytest.mark.parametrize("name", MIXED)
def test_tensors_of_two_devices_raise(pretend, name):
    host = torch.ones(3, 4)
    with pytest.raises(RuntimeError, match="pretend"):
        MIXED[name](host.to(DEVICE), host, torch.tensor([0, 1]))


def test_numpy_of_a_tensor_there_raises(pretend):
    with pytest.raises(TypeError, match="pretend"):
        torch.ones(3, device=DEVICE).numpy()


WAITS = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x[0]),
    "if": lambda x: bool(x.any()),
    "list": lambda x: x.tolist(),
    "copy": lambda x: x.cpu(),
    "boolean mask": lambda x: x[x > 0],
    "where": lambda x: x.nonzero(),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_wait_is_counted_where_it_happens_and_can_be_forbidden(pretend, name):
    x = torch.ones(4, device=DEVICE)
    with pretend.watch() as seen:
        WAITS[name](x)
        x + x
    waits = seen.of("sync")
    assert waits
    assert all("test_pretend.py" in place for _, _, place in waits)
    with pretend.watch(forbid=("sync",)), pytest.raises(RuntimeError, match="sync"):
        WAITS[name](x)


def test_an_index_on_the_host_is_noted_or_refused(pretend):
    x, index = torch.ones(4, device=DEVICE), torch.tensor([0])
    with pretend.watch() as seen:
        x[index]
    assert seen.of("slow").total() == 1
    with pretend.strict_index(), pytest.raises(RuntimeError, match="indices cpu"):
        x[index]


def test_without_a_compiler_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(CannotBuild, match=r"no C\+\+ compiler: install g\+\+"):
        build()


def test_a_lenient_device_notes_what_would_raise(pretend):
    with pretend.watch() as seen, pretend.lenient():
        torch.ones(2, device=DEVICE) + torch.ones(2)
    assert seen.of("wrong device").total() == 1


def test_the_device_is_found_by_those_who_ask_for_any_only_when_it_is_shown(pretend):
    assert str(torch.accelerator.current_accelerator(check_available=True)) != DEVICE
    with pretend.first_accelerator():
        assert str(torch.accelerator.current_accelerator(check_available=True)) == DEVICE


def test_beside_cuda_it_is_not_even_imported(monkeypatch, pytestconfig):
    here = Path(__file__).parent
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    ignored = pytestconfig.hook.pytest_ignore_collect
    assert ignored(collection_path=here, config=pytestconfig)
    assert not ignored(collection_path=here.parent / "saes", config=pytestconfig)
    monkeypatch.undo()
    assert not ignored(collection_path=here, config=pytestconfig)
