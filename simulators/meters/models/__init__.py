"""The meters that can be simulated, by the name of their register map."""

from simulators.meters.models import (
    abb,
    carlo_gavazzi,
    chint,
    eastron,
    huawei,
    janitza,
    orno,
    schneider,
    shelly,
    siemens,
    sunspec,
)
from simulators.meters.registers import Model

DEFAULT_MODEL = "eastron_sdm630"

MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        *eastron.MODELS,
        *carlo_gavazzi.MODELS,
        schneider.IEM3000,
        chint.DTSU666,
        abb.B23,
        siemens.PAC2200,
        orno.WE516,
        janitza.UMG,
        shelly.PRO_3EM,
        huawei.EMMA,
        *sunspec.MODELS,
    )
}
