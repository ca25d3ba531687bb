"""Whether data is on this machine, or would be downloaded."""

from nysact.experiments.config.data import ImageData, Section
from nysact.experiments.data.cifar import is_cached
from nysact.experiments.data.fashion_mnist import DEBIAN_FOLDER, cache_folder, files_in


def would_be_downloaded(data: Section) -> bool:
    """Whether loading data would download it; data in a folder, or with a package, never is."""
    if not isinstance(data, ImageData) or data.folder is not None or data.name == "digits":
        return False
    if data.name == "fashion-mnist":
        return not any(files_in(folder) for folder in (DEBIAN_FOLDER, cache_folder()))
    return not is_cached(data.name)
