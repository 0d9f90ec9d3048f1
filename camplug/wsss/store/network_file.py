"""Files of trained networks: settings, class names, preprocessing and weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from camplug.errors import InputError, ModelError
from camplug.images.preprocess import Preprocess
from camplug.images.save import write_atomically
from camplug.wsss.train.checkpoints import network_in_checkpoint

N = TypeVar("N", bound=nn.Module)
NETWORK = "network.pt"  # segmentation network in the folder of a run


@dataclass(frozen=True)
class NetworkFile(Generic[N]):
    """Format of a network file; files hold plain data and tensors only.

    Attributes:
        name: name of the network: `camplug train NAME` writes NAME.pt, which `load_NAME` reads.
        wrong_file: message about a file of another kind, following its name.
        get_settings: function from a network to its settings as plain data.
        rebuild: function from the model, settings, class names and preprocessing to the untrained network.
    """

    name: str
    wrong_file: str
    get_settings: Callable[[N], dict[str, Any]]
    rebuild: Callable[[nn.Module, Mapping[str, Any], Sequence[str], Preprocess], N]

    @property
    def file(self) -> str:
        """Name of the file in the folder of a training."""
        return f"{self.name}.pt"

    @property
    def format(self) -> str:
        """Identifier in the file."""
        return f"camplug {self.name} 1"

    def save(self, path: str | os.PathLike[str], network: N, made_with: Mapping[str, Any]) -> None:
        """Write a network atomically, as plain data and tensors.

        Args:
            path: path of the file.
            network: network to write.
            made_with: "model", the specification of the base network for `camplug.load_model` (None for a module of
                your own), and "num_classes" of its own head.

        Raises:
            InputError: the file cannot be written.
        """
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        document = self.make_header(network, made_with) | {"state": state}
        write_atomically(os.fspath(path), lambda f: torch.save(document, f))

    def make_header(self, network: N, made_with: Mapping[str, Any]) -> dict[str, Any]:
        """Make the plain data that a file holds beside the weights."""
        named: Any = network
        return {
            "format": self.format,
            "made_with": dict(made_with),
            "classes": list(named.classes),
            "network": self.get_settings(network),
            "preprocess": asdict(named.preprocess),
        }

    def load(self, path: str | os.PathLike[str], model: nn.Module | None = None) -> N:
        """Load the network of a file, in evaluation mode.

        Args:
            path: path of the file.
            model: untrained base network, required where it is a module of your own; it is changed in place.

        Raises:
            InputError: the file is missing or of another kind.
            ModelError: the base network cannot be built or does not fit.
        """
        from camplug.models import MADE_WITH, load_model

        name = os.fspath(path)
        document = self.read(name)
        if document is None:
            raise InputError(f"{name!r} {self.wrong_file}; see `camplug train {self.name}`.")
        made = document["made_with"]
        if model is None:
            if made.get("model") is None:
                raise ModelError(
                    f"{name!r} was trained on a module of one's own; give it: load_{self.name}(path, model)."
                )
            model = load_model(made["model"], num_classes=made.get("num_classes"), pretrained=False)
        reads = Preprocess(**document["preprocess"])
        try:
            network = self.rebuild(model, document["network"], document["classes"], reads)
            network.load_state_dict(document["state"])
        except (RuntimeError, InputError, ModelError) as error:
            first = str(error).strip().splitlines()[-1].strip()
            raise ModelError(f"{name!r} does not fit {made.get('model') or type(model).__name__}: {first}") from None
        setattr(network, MADE_WITH, dict(made))
        return network.eval()

    def read(self, name: str) -> dict[str, Any] | None:
        """Read a file of this kind, or a training's checkpoint with one; None for any other file.

        Raises:
            InputError: the file is missing.
        """
        try:
            found = torch.load(name, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            maker = "wsss run" if os.path.basename(name) == NETWORK else f"train {self.name}"
            raise InputError(f"there is no file {name!r}; `camplug {maker}` makes it.") from None
        except Exception:  # torch.load raises nearly anything on other files
            return None
        if not isinstance(found, dict):
            return None
        document = network_in_checkpoint(found) or found
        return document if document.get("format") == self.format else None
