"""AOTInductor packages, compiled for the CPU of this machine and run against eager."""

from __future__ import annotations

import re
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import gettempdir

import numpy as np
import pytest
import torch
import tritonclient.grpc as triton
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from benchmarks.grpc_floor import measure_grpc_floor
from contracts.datasets import read_dataset
from contracts.encoding import EncodedBatch
from contracts.engine_fit import EngineMismatchError, ServingMachine
from contracts.reading import ContractError
from contracts.releases import CHECKPOINT, verify_release
from contracts.slates import Candidate, RerankRequest
from handlers.archive import make_archive
from tests.model.tiny import SPEC, lively_model, model_settings
from tests.serving.conftest import Served, local_triton
from tests.serving.test_backend import inputs
from tests.training.runs import done, make_data
from training import export
from training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.engines import aotinductor
from training.engines.formats import EngineSettings
from training.engines.packages import compiler_options, this_cpu
from training.engines.parity import Engines, answer, no_rules, seeded_rules
from training.engines.plan_builder import this_gpu
from training.engines.torchscript import eager_engines
from training.model.gen_reranker import GenReranker
from training.release.engines_folder import read_engines_folder
from training.release.installing import install
from training.release.publishing import publish
from training.release.serving_settings import ServingSettings
from training.settings import TrainingSettings

#: Two compilations by g++: a minute of one core, several where others use it too.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command leaves; it has run the packages against eager, greedy and sampled."""
    folder = tmp_path_factory.mktemp("aoti")
    slates = make_data(folder, 400)
    dataset, spec = read_dataset(slates)
    torch.manual_seed(0)
    settings = TrainingSettings(model=model_settings(width=8, decoder_layers=1, heads=4))
    checkpoint = Checkpoint(
        spec=spec,
        settings=settings,
        stage="pretrain",
        weights=GenReranker(spec, settings.model).state_dict(),
        data={"dataset": dataset.source, "fingerprint": dataset.fingerprint},
        parents={},
        scores={},
    )
    save_checkpoint(folder / "best.pt", checkpoint)
    options = ("--checkpoint", folder / "best.pt", "--data", slates, "--out", folder / "engines")
    done(export.app, *options, "--engine", "aotinductor")
    return folder / "engines"


def test_packages_pass_the_parity_gates_themselves(engines: Path) -> None:
    found, _ = read_engines_folder(engines)
    assert len(found.gates) == 6
    for gate in found.gates:
        assert gate.passed
        assert not gate.name.startswith("parity.graph")
    for engine in found.engines:
        assert (engine.format, engine.compute_capability) == ("aotinductor", this_gpu())
        assert ("cpu" in engine.versions) == (this_gpu() is None)


@pytest.mark.skipif(
    not compiler_options(this_cpu()).get("cpp.march"),
    reason="this torch compiles for the machine alone, or it is no x86",
)
def test_code_is_for_all_cpus_of_the_name(engines: Path) -> None:
    """And not for the model of this one: the flags that torch noted in the package."""
    level = compiler_options(this_cpu())["cpp.march"]
    for file in aotinductor.FILES.values():
        with zipfile.ZipFile(engines / file) as package:
            sources = [package.read(name) for name in package.namelist() if name.endswith(".cpp")]
        flags = {flag for text in sources for flag in re.findall(rb"-march=(\S+)", text)}
        assert flags == {str(level).encode()}


def test_batches_and_buckets_of_any_size(engines: Path) -> None:
    found, spec = read_engines_folder(engines)
    runs = aotinductor.load(engines, found.engines, spec.list_size)
    for rows, candidates in ((1, 2), (1, 512), (64, 30), (3, 16)):
        z, prior = runs.encode(
            torch.ones(rows, candidates, spec.item.categorical_columns, dtype=torch.int32),
            torch.zeros(rows, candidates, spec.item.dense_columns),
            torch.full((rows, spec.user.categorical_columns), 2**31 - 1, dtype=torch.int32),
            torch.zeros(rows, spec.user.dense_columns),
            torch.full((rows, 1), candidates, dtype=torch.int32),
        )
        assert (len(z), prior.shape) == (rows, (rows, candidates))
        assert z.isfinite().all(), "a category beyond its table"


def test_more_candidates_than_positions_read_beyond_no_table(engines: Path) -> None:
    """Compiled code looks at no shape: with 600 candidates it must answer as eager does."""
    found, spec = read_engines_folder(engines)
    runs = aotinductor.load(engines, found.engines, spec.list_size)
    model = load_checkpoint(engines / CHECKPOINT).model().eval()
    m, generator = 600, torch.Generator().manual_seed(0)
    shape = (2, m, spec.item.categorical_columns)
    given = (
        torch.randint(0, 4, shape, generator=generator, dtype=torch.int32),
        torch.randn(2, m, spec.item.dense_columns, generator=generator),
        torch.ones(2, spec.user.categorical_columns, dtype=torch.int32),
        torch.randn(2, spec.user.dense_columns, generator=generator),
        torch.tensor([[m], [40]], dtype=torch.int32),
    )
    with torch.inference_mode():
        z, prior = aotinductor.AnyWidthEncoder(model)(*given)
        got_z, got_prior = runs.encode(*given)
        assert torch.allclose(got_z[0], z[0], atol=1e-4)
        assert torch.allclose(got_prior, prior, atol=1e-4)
        rest = (torch.ones(2, 1), torch.tensor([[1], [2]]), *no_rules([1, 2], spec.list_size, m))
        order = runs.decode(got_z, got_prior, *rest)[0]
        expected = aotinductor.SeededDecoder(model, "fp32", None)(z, prior, *rest)[0]
    assert torch.equal(order, expected)


def test_a_release_of_packages(engines: Path, tmp_path: Path) -> None:
    release = publish(engines, tmp_path / "releases", ServingSettings(profile="aoti"))
    manifest = verify_release(release)
    for engine in manifest.engines:
        assert engine.file.endswith("/1/model.pt2")
        text = (release / engine.file).parents[1].joinpath("config.pbtxt").read_text()
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
        assert (config.platform, config.backend) == ("torch_aoti", "pytorch")
        kind = "KIND_CPU" if this_gpu() is None else "KIND_GPU"
        assert config.instance_group[0].kind == config.instance_group[0].Kind.Value(kind)
    other = ServingMachine(cpu="another", compute_capability="another")
    with pytest.raises(EngineMismatchError, match="this machine has another"):
        install(release, tmp_path / "served", machine=lambda: other)
    assert install(release, tmp_path / "served")
    with pytest.raises(ContractError, match="encoder is aotinductor, and what runs here is torch"):
        make_archive(release, tmp_path / "store")


@pytest.mark.skipif(this_gpu() is not None, reason="profile cpu serves packages for a CPU")
def test_triton_serves_packages_by_the_python_backend(engines: Path, tmp_path: Path) -> None:
    """Joined batches of two instances, rules and sampling, against the eager model."""
    serving = ServingSettings(profile="cpu", instances=2, warmup_batches=(1,))
    release = publish(engines, tmp_path / "releases", serving)
    other = ServingMachine(cpu="another", backends=("python",))
    with pytest.raises(EngineMismatchError, match=r"built for a CPU with .* has another"):
        install(release, tmp_path / "elsewhere", machine=lambda: other)
    model = load_checkpoint(engines / CHECKPOINT).model().eval()
    eager = Engines(*eager_engines(model), model.spec.list_size)
    with local_triton(tmp_path / "stack") as stack:
        served = Served(stack, stack.load(release))
        url = served.url

        def differing(rows: int) -> int:
            generator = torch.Generator().manual_seed(rows)
            batch = EncodedBatch(
                item_cat=_random(generator, (rows, 16, model.spec.item.categorical_columns)),
                item_dense=torch.randn(
                    rows, 16, model.spec.item.dense_columns, generator=generator
                ).numpy(),
                user_cat=_random(generator, (rows, model.spec.user.categorical_columns)),
                user_dense=torch.randn(
                    rows, model.spec.user.dense_columns, generator=generator
                ).numpy(),
                count=np.full(rows, 14, np.int32),
            )
            wrong = 0
            for temperature, ruled in ((0.0, False), (1.0, False), (0.0, True)):
                expected = answer(eager, batch, temperature, range(rows), ruled)
                got = _ask(url, served.release, batch, temperature, ruled, model.spec.list_size)
                wrong += int((got != expected.order_BN.numpy()).any(1).sum())
            return wrong

        left = [path for path in Path(gettempdir()).glob("aotinductor_*") if _is_of(path, engines)]
        assert not left, "what was unpacked is removed once it is loaded"
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(differing, [1, 2, 3, 1, 5, 1, 8, 1])) == 0
        asked = tuple(Candidate(item=f"i{index}") for index in range(12))
        request = RerankRequest(request_id="q", user="u", candidates=asked)
        floor = measure_grpc_floor(stack, served.release, [request], calls=5, warmup=1)
        assert floor.engines.p50 > 0, "the benchmark opens packages, too"


def _random(generator: torch.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return torch.randint(0, 4, shape, generator=generator, dtype=torch.int32).numpy()


def _is_of(unpacked: Path, engines: Path) -> bool:
    """Whether a folder holds the code of these packages; others may run on this machine, too."""
    names: set[str] = set()
    for file in aotinductor.FILES.values():
        with zipfile.ZipFile(engines / file) as package:
            names |= {name.rpartition("/")[2] for name in package.namelist()}
    return any(path.name in names for path in unpacked.rglob("*.so"))


def _ask(
    url: str, release: str, batch: EncodedBatch, temperature: float, ruled: bool, n: int
) -> np.ndarray:
    rows, padded = batch.item_cat.shape[:2]
    rules = (seeded_rules if ruled else no_rules)(range(rows), n, padded)
    arrays = {
        "ITEM_CAT": batch.item_cat,
        "ITEM_DENSE": batch.item_dense,
        "USER_CAT": batch.user_cat,
        "USER_DENSE": batch.user_dense,
        "COUNT": batch.count[:, None],
        "TEMPERATURE": np.full((rows, 1), temperature, np.float32),
        "SEED": np.arange(rows)[:, None],
        **{name: rule.numpy() for name, rule in zip(("PINNED", "GROUP", "LIMIT"), rules)},
    }
    with triton.InferenceServerClient(url) as client:
        found = client.infer(f"gref_{release}", inputs(arrays), client_timeout=120)
    return np.asarray(found.as_numpy("ORDER"))


def test_a_file_that_is_no_package(engines: Path, tmp_path: Path) -> None:
    found, _ = read_engines_folder(engines)
    for engine in found.engines:
        (tmp_path / engine.file).write_bytes(np.random.default_rng(0).bytes(1000))
    with pytest.raises(ContractError, match="not an AOTInductor package"):
        aotinductor.load(tmp_path, found.engines, SPEC.list_size)


def test_another_target_than_this_machine(tmp_path: Path) -> None:
    settings = EngineSettings(format="aotinductor", compute_capability="1.0")
    with pytest.raises(ContractError, match=r"capability 1\.0: AOTInductor compiles for this"):
        aotinductor.save(lively_model(), tmp_path, settings, "omtp")
