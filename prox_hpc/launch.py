"""The front door: `python -m prox_hpc.launch [group=option] [key=value] [-m key=a,b]`.

Composes the configuration, plans the study, and either runs it on this machine with live progress, or queues all of it
on Slurm and returns. Whatever is published already is reused. Exit status: 0 done or queued, 1 a step failed, 2 the
user's mistake (told in one line, before anything is queued), 130 interrupted.
"""

import hashlib
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from prox_hpc.checks import check_machine, check_port, check_refiner, check_training, check_world
from prox_hpc.config import Config
from prox_hpc.display import Display, print_dry_run, print_queued
from prox_hpc.errors import EXIT_USER_ERROR, UserError
from prox_hpc.study import store as disk
from prox_hpc.study.amount import check_amounts
from prox_hpc.study.models import check_models
from prox_hpc.study.plan import Plan, plan_study

HELP = """\
ProX on a Slurm cluster: compose a study, plan its steps, run it here or queue it on Slurm.

  python -m prox_hpc.launch                                          the quickstart study on this machine
  python -m prox_hpc.launch scale=tiny name=try                      the same, in a few minutes
  python -m prox_hpc.launch cluster=slurm cluster.account=ACC ...    queue it and return
  python -m prox_hpc.launch -m experiment=refiner_size refiner=xs,s,m cluster=slurm ...   one study per refiner
  python -m prox_hpc.launch corpus=files corpus.path=DIR ...         your own documents
  python -m prox_hpc.launch ... dry_run=true                         print the DAG and every sbatch script

Groups (choose with group=option; `--config-dir DIR` adds your own YAML files):

{groups}

Any key can be set with key=value: `--cfg job` prints all of them with their present values, prox_hpc/config.py says
what each means. `--hydra-help` has Hydra's own flags.

After launch:
  python -m prox_hpc.status RUN [--watch|--json]     how it stands
  python -m prox_hpc.cancel RUN                      stop it; launching again goes on from there
"""

_composed: list[Config | UserError] = []  # the studies of this call: several in a multirun


def conf_dir() -> str:
    """The shipped configuration tree: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return str(next(path for path in (package / "conf", package.parent / "conf") if path.is_dir()))


def help_text() -> str:
    """What `--help` prints. Ours, since Hydra's copies its whole configuration for every group: 0.5 s of CPU time."""
    groups: dict[str, list[str]] = {}
    for path in sorted(Path(conf_dir()).glob("*/*.yaml")):
        groups.setdefault(path.parent.name, []).append(path.stem)
    return HELP.format(groups="\n".join(f"  {group}: {', '.join(options)}" for group, options in groups.items()))


def typed(cfg: DictConfig) -> Config:
    """The composed configuration as dataclasses, with every path absolute. Raises UserError for a missing value."""
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise UserError(f"{missing[0]}: must be set; e.g. {missing[0]}=VALUE")
    config = OmegaConf.to_object(cfg)
    assert isinstance(config, Config)
    if not config.output:
        raise UserError("output=: is empty; give a folder, or leave it out")
    output = Path(config.output).expanduser().resolve()
    config.output = str(output)
    config.store = str(Path(config.store).expanduser().resolve() if config.store else output / "store")
    config.run_dir = str(
        Path(config.run_dir).expanduser().resolve() if config.run_dir else output / "runs" / config.name
    )
    for section, keys in ((config.refiner, ("doc_model", "chunk_model")), (config.trainee, ("model", "tokenizer"))):
        for key in keys:
            folder = Path(getattr(section, key) or "").expanduser()
            if getattr(section, key) and folder.is_dir():  # tasks run in other folders
                setattr(section, key, str(folder.resolve()))
    if config.evaluation.data and config.evaluation.data != "hub":
        config.evaluation.data = str(Path(config.evaluation.data).expanduser().resolve())
    return config


def _point_of_sweep(config: Config) -> None:
    """Give each point of a multirun its own run folder, named by what is swept."""
    hydra_config = HydraConfig.get()
    if hydra_config.mode != RunMode.MULTIRUN:
        return
    swept = [item for item in hydra_config.overrides.task if item not in sys.argv]  # `refiner=xs` of `refiner=xs,s`
    name = ",".join(swept).replace("/", "_") or str(hydra_config.job.num)
    if len(name) > 150:  # a file name's length is limited; the points must stay apart
        name = f"{name[:140]}-{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}"
    config.run_dir = str(Path(str(config.run_dir)) / name)


def plan(config: Config) -> Plan:
    """The DAG of a study; looks at the files of its corpora. Raises UserError."""
    from prox_hpc.corpus.files import plan_files
    from prox_hpc.corpus.read import Source
    from prox_hpc.evaluate.prepared import identify

    def count_blocks(description: dict[str, Any]) -> int:
        return len(Source.of_files(description).blocks)

    return plan_study(config, plan_files, count_blocks, identify_model, identify)


def identify_model(name: str) -> dict[str, Any] | None:
    """{file: [size, mtime]} of a model folder; None for a hub name."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return None
    stats = {path.name: path.stat() for path in sorted(folder.iterdir()) if path.is_file()}
    return {file: [stat.st_size, stat.st_mtime] for file, stat in stats.items()}


def check(config: Config) -> Plan:
    """Everything that can be found wrong before anything is queued; -> the plan. Raises UserError."""
    study = plan(config)
    check_models(config)
    check_training(config, study)
    check_refiner(config, study)
    check_world(study)
    check_amounts(Path(str(config.store)), study)
    check_machine(config, study)
    check_port(config)
    disk.foresee(Path(str(config.store)))
    disk.check_allowed(Path(str(config.store)), study)
    disk.foresee(Path(str(config.run_dir)))
    disk.check_run(Path(str(config.run_dir)), study, asdict(config))
    if config.dry_run:
        return study
    if config.cluster.backend == "slurm":
        from prox_hpc.cluster.slurm import check_slurm

        check_slurm(config.cluster)
    disk.probe(Path(str(config.store)))
    return study


def launch(config: Config, study: Plan, console: Console) -> int:
    """Run or queue one checked study; -> exit status."""
    store, run = Path(str(config.store)), Path(str(config.run_dir))
    if config.dry_run:
        print_dry_run(study, store, config, console)
        return 0
    disk.open_run(run, study, asdict(config))
    (run / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(asdict(config))))
    start = _queue if config.cluster.backend == "slurm" else _run_here
    return start(config, study, store, run, console)


def _queue(config: Config, study: Plan, store: Path, run: Path, console: Console) -> int:
    from prox_hpc.cluster.slurm import submit

    queued = submit(study, store, config.cluster, run)
    print_queued(queued, run, console)
    return 0


def _run_here(config: Config, study: Plan, store: Path, run: Path, console: Console) -> int:
    from prox_hpc.cluster.local import LocalRun

    pid_file = run / "launcher.pid"
    pid_file.write_text(str(os.getpid()))
    # A launcher started in the background may have inherited "ignore": `prox_hpc.cancel` must reach it all the same.
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.default_int_handler)
    local = LocalRun(study, store, config.cluster)
    try:
        with Display(local, run, console) as display:
            fine = local.run(display.tick)
    finally:
        pid_file.unlink(missing_ok=True)
    display.conclude()
    return 0 if fine else 1


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="config")
def _compose(cfg: DictConfig) -> None:
    """Hydra only composes: what it catches from here it would report in its own words."""
    try:
        config = typed(cfg)
        _point_of_sweep(config)
        _composed.append(config)
    except UserError as error:
        _composed.append(error)


def _one_line(error: BaseException) -> str:
    """What Hydra and OmegaConf say, with the reason that they keep in the cause."""
    said = f"{error}\n{error.__cause__ or ''}"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("full_key", "object_type", "reference_type"))]
    return "; ".join(dict.fromkeys(told))


def _compose_or_refuse() -> None:
    """Compose. UserError for an override that breaks Hydra itself (a key inside a list, `seeds.a=3`)."""
    try:
        _compose()
    except (ValueError, AssertionError) as error:
        overrides = " ".join(sys.argv[1:])
        raise UserError(f"{overrides}: cannot be composed ({_one_line(error)}); check the keys") from error


def main() -> int:
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_text(), end="")
        return 0
    ConfigStore.instance().store(name="base_config", node=Config)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hand exceptions on to here
    try:
        _compose_or_refuse()
        studies = []
        for config in _composed:  # all points of a multirun are checked before the first is queued
            if isinstance(config, UserError):
                raise config
            studies.append((config, check(config)))
        console = Console()
        return max((launch(config, study, console) for config, study in studies), default=0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except (HydraException, OmegaConfBaseException) as error:
        key = getattr(error, "full_key", None)
        told = _one_line(error)
        if "LexerNoViableAlt" in told:
            told += "; a value with other than plain characters stands in quotes: 'KEY=\"VALUE\"'"
        if "'cluster.resources." in told:
            told += "; a kind of step that your cluster file (conf/cluster) lacks can be added in that file only"
        print(f"error: {f'{key}: ' if key and key not in told else ''}{told}", file=sys.stderr)
        print("see `python -m prox_hpc.launch --help` for the groups and `--cfg job` for all keys", file=sys.stderr)
        return EXIT_USER_ERROR
    except PermissionError as error:
        print(f"error: {error.filename}: {error.strerror}; get access or choose another path", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("interrupted: running tasks were stopped; launch again to go on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
