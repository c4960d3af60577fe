"""ImageNet's classes in WordNet: the synsets above them, each of which is a task.

`wordnet.json` holds the classes in the order of ILSVRC-2012 and, for each of them and of the synsets above, its words
and its parents; a synset may have several parents. It was derived from WordNet 3.0 (Fellbaum, "WordNet: an electronic
lexical database", MIT Press 1998) and the list of classes in timm by

    python -m supervised_imagenet.wordnet /usr/share/wordnet/data.noun

(the file is in Debian's package wordnet-base).
"""

import json
import math
import re
import sys
from functools import cached_property, lru_cache
from pathlib import Path

from info_geometry.script import InputError, replacing, run, shown, unknown

FILE = Path(__file__).with_name("wordnet.json")


class Hierarchy:
    """The synsets above some classes, as a directed graph without cycles.

    Attributes: `classes`, their synsets in the order of class indices; `words` {synset: [word, ...]}, the usual one
    first; and `parents` {synset: [synset, ...]}, nearest hypernyms.
    """

    def __init__(self, classes, words, parents):
        self.classes, self.words, self.parents = classes, words, parents

    @cached_property
    def members(self):
        """{synset: indices of the classes at or below it, ascending}."""
        members = {synset: [] for synset in self.words}
        for index, synset in enumerate(self.classes):
            for above in self.ancestors(synset):
                members[above].append(index)
        return members

    @cached_property
    def _called(self):
        called = {}
        for synset, words in self.words.items():
            for word in dict.fromkeys(map(_plain, words)):
                called.setdefault(word, []).append(synset)
        return called

    def ancestors(self, synset):
        """The synset itself and all above it."""
        found, open_ends = set(), [synset]
        while open_ends:
            synset = open_ends.pop()
            if synset not in found:
                found.add(synset)
                open_ends += self.parents[synset]
        return found

    def steps_up(self, synset):
        """{synset above: fewest steps to it}, the synset itself with 0."""
        found, level = {synset: 0}, [synset]
        while level:
            level = list(dict.fromkeys(parent for s in level for parent in self.parents[s] if parent not in found))
            found |= dict.fromkeys(level, max(found.values()) + 1)
        return found

    def path_length(self, one, other):
        """Fewest steps from one synset to another, up to what is above both and down (Rada et al. 1989)."""
        up, down = self.steps_up(one), self.steps_up(other)
        return min(up[s] + down[s] for s in up.keys() & down.keys())

    def information(self, synset):
        """Information content -log p in nats, p the share of the classes that are at or below the synset."""
        return math.log(len(self.classes) / len(self.members[synset]))

    def information_distance(self, one, other):
        """Jiang and Conrath's distance in nats, "Semantic similarity based on corpus statistics and lexical taxonomy"
        (1997): the information of both, less twice that of the most informative synset above both."""
        common = self.ancestors(one) & self.ancestors(other)
        return self.information(one) + self.information(other) - 2 * max(map(self.information, common))

    def above_all(self):
        """The lowest synset above all classes."""
        every = [synset for synset, members in self.members.items() if len(members) == len(self.classes)]
        return max(every, key=lambda synset: len(self.ancestors(synset)))

    def find(self, name):
        """The synset of two classes or more that is called `name`: its number, such as n02120997, or one of its words.

        Raises InputError for an unknown, ambiguous or too narrow name, with what it could mean.
        """
        if not re.fullmatch(r"n\d{8}", name):
            called = self._called.get(_plain(name), [])
            known = [word for synset, words in self.words.items() if len(self.members[synset]) > 1 for word in words]
        else:
            called, known = [synset for synset in self.words if synset == name], sorted(self.words)
        wide = [synset for synset in called if len(self.members[synset]) > 1]
        if len(wide) == 1:
            return wide[0]
        if not called:
            raise unknown("synset above ImageNet's classes", name, known)
        meanings = "; ".join(map(self.described, wide or called))
        if wide:
            raise InputError(f"{name!r} is the name of several synsets; choose one by its number: {meanings}")
        wider = dict.fromkeys(parent for synset in called for parent in self.parents[synset])
        raise InputError(f"{name!r} is no task, which takes two classes: {meanings}; wider: {self._listed(wider)}")

    def described(self, synset):
        n = len(self.members[synset])
        return f"{synset} ({', '.join(self.words[synset][:3])}; {n} {'class' if n == 1 else 'classes'})"

    def _listed(self, synsets):
        return ", ".join(f"{self.words[synset][0]} ({len(self.members[synset])})" for synset in synsets)

    def name_of(self, synset):
        """What a task of this synset is called: its first word that means nothing else, or its number."""
        for word in self.words[synset]:
            try:
                if self.find(word) == synset:
                    return re.sub(r"[^A-Za-z0-9]+", "-", word)
            except InputError:
                continue
        return synset


def _plain(word):
    return re.sub(r"[^A-Za-z0-9]+", " ", word).casefold()


@lru_cache
def load():
    """The hierarchy above ImageNet's 1000 classes."""
    content = json.loads(FILE.read_text())
    words, parents = ({synset: entry[i] for synset, entry in content["synsets"].items()} for i in (0, 1))
    return Hierarchy(content["classes"], words, parents)


def derive(data_noun, classes):
    """The text of `wordnet.json` from WordNet's file of nouns and the classes' synsets."""
    nouns, notice = {}, []
    for line in Path(data_noun).read_text().splitlines():
        if line.startswith("  "):  # the licence
            notice.append(line.split(maxsplit=1)[1] if len(line.split()) > 1 else "")
            continue
        fields = line.partition(" | ")[0].split()
        n_words = int(fields[3], 16)
        words = [word.replace("_", " ") for word in fields[4 : 4 + 2 * n_words : 2]]
        pointers = fields[5 + 2 * n_words :]
        # @ is a hypernym, @i the class that an instance belongs to
        parents = [f"n{pointers[i + 1]}" for i in range(0, len(pointers), 4) if pointers[i] in ("@", "@i")]
        nouns[f"n{fields[0]}"] = words, parents
    above = Hierarchy(classes, *({synset: entry[i] for synset, entry in nouns.items()} for i in (0, 1)))
    kept = sorted(set().union(*map(above.ancestors, classes)))
    lines = ",\n".join(f'  "{synset}": {json.dumps(nouns[synset])}' for synset in kept)
    licence = " ".join(" ".join(notice).split())
    source = "synsets and hypernyms from WordNet 3.0; classes of ILSVRC-2012 in the order of timm's imagenet-1k"
    return (
        f'{{\n "source": {json.dumps(source)},\n "licence": {json.dumps(licence)},\n'
        f' "classes": {json.dumps(classes)},\n "synsets": {{\n{lines}\n }}\n}}\n'
    )


def main():
    from timm.data import ImageNetInfo

    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        raise InputError("name WordNet's file data.noun")
    info = ImageNetInfo("imagenet-1k")
    with replacing(FILE) as partial:
        partial.write_text(derive(sys.argv[1], [info.index_to_label_name(i) for i in range(info.num_classes())]))
    print(shown(FILE))


if __name__ == "__main__":
    run(main)
