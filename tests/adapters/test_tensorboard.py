import pytest
from deft_adapters.tensorboard import VARIABLE, TensorBoardLogger

from deft_plugin.plugins import load_plugins
from deft_plugin.types import EpochEnd


def event(epoch):
    return EpochEnd(
        epoch=epoch,
        num_epochs=2,
        losses={"dp": 1.0 / epoch, "sim": 2.0},
        scalars={"selected_fraction": 0.5},
        learning_rate=0.03,
        examples_per_second=100.0,
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scalars_of_each_epoch(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv(VARIABLE, str(tmp_path))
    logger = TensorBoardLogger()
    for epoch in (1, 2):
        logger.deft_epoch_end(event=event(epoch))
    (run,) = tmp_path.iterdir()
    read = EventAccumulator(str(run)).Reload()
    tags = ["examples_per_second", "learning_rate", "loss/dp", "loss/sim", "selected_fraction"]
    assert sorted(read.Tags()["scalars"]) == tags
    assert [(point.step, point.value) for point in read.Scalars("loss/dp")] == [(1, 1.0), (2, 0.5)]


def test_nothing_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    TensorBoardLogger().deft_epoch_end(event=event(1))
    assert list(tmp_path.iterdir()) == []


def test_it_is_a_plugin():
    assert load_plugins().manager.has_plugin("tensorboard")
