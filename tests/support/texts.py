"""A folder of texts as results, and images without anything to draw."""

from __future__ import annotations

from camplug.wsss.store.result_folder import ResultFolder


class Texts(ResultFolder[str]):
    """One text file per image: the digests of its inputs in the first line, the result below."""

    what, suffix = "texts", ".txt"

    def is_whole(self, name):
        return self.get_path(name).exists()

    def write(self, result, file, digest_text):
        file.write(f"{digest_text}\n{result}".encode())

    def read_digest_text(self, name):
        return self.get_path(name).read_text().splitlines()[0]

    def load(self, name):
        return self.get_path(name).read_text().splitlines()[1]


class Images:
    """Images known by their names alone."""

    def __init__(self, *ids):
        self.ids = ids

    def __len__(self):
        return len(self.ids)


def prepared(path, **settings):
    folder = Texts(path)
    folder.prepare(settings)
    return folder
