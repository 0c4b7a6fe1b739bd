"""Makes small_tokenizer.model: the tokenizer of the small models that come with openpi.

    python src_py/openpi/assets/make_small_tokenizer.py

Trained on sentences that are generated here, so that nothing in it is anyone else's. 1536 pieces in PaliGemma's
layout: 0 pad, 1 eos, 2 bos, 3 unk, newline, 256 bytes, text, 256 <loc>, 128 <seg>.
"""

from __future__ import annotations

import io
import itertools
import pathlib
import random

import sentencepiece

from openpi.models import sentencepiece_writer as writer

VOCABULARY = 1536
LOCATIONS = 256
SENTENCES = 20_000
OUTPUT = pathlib.Path(__file__).with_name("small_tokenizer.model")

VERBS = """pick up|grasp|lift|hold|push|pull|slide|rotate|flip|turn over|place|put down|move|hand over|insert|pour|
open|close|fold|unfold|wipe|clean|stack|unstack|sort|pack|unpack|press|switch on|switch off|transfer|take|bring|drop|
unplug|plug in|hang|unhang|stir|scoop|peel|cut|wrap|unwrap|align|screw|unscrew|tie|untie|throw away|put away"""
OBJECTS = """cube|block|peg|socket|bowl|plate|cup|mug|bottle|spoon|fork|knife|towel|shirt|sock|drawer|door|cabinet|
box|basket|tray|pen|marker|book|toy|ball|apple|banana|orange|lemon|carrot|potato|tomato|bread|cheese|egg|can|jar|lid|
pan|pot|kettle|sponge|cloth|napkin|screwdriver|hammer|wrench|tape|cable|charger|battery|phone|remote|button|switch|
lamp|shelf|table|bin|bag|microwave|oven|stove|sink|rack|mat|glove|hat|shoe|key|coin|ring|needle|candy|tube|bracket"""
COLOURS = "red|green|blue|yellow|black|white|grey|gray|brown|purple|pink|orange|silver|wooden|metal|plastic|small|large"
PLACES = """on the table|in the bowl|into the box|on the plate|into the basket|next to the mug|on the top shelf|
in the bottom drawer|to the left|to the right|in front of the robot|behind the bottle|under the table|into the socket|
from the left arm to the right arm|with the left arm|with the right gripper|between the two arms|inside the cabinet|
onto the rack|in the middle|at the edge of the table|over the sink|away from the stove|back to its place"""
LINKS = "and then|then|and|after that|before you|while you|until you"
TAILS = "carefully|slowly|quickly|gently|without dropping it|twice|again|please|as before|in one motion|"
LINES = (
    "Task: {}, State: {};|task {}: {}|step {} of {}|{}|What should the robot do to {}?|Robot: {}.|Please {}.|I will {}."
)


def _choices(text: str) -> list[str]:
    return [choice.strip() for choice in text.split("|")]


def _instruction(rng: random.Random) -> str:
    def pick(text: str) -> str:
        return rng.choice(_choices(text))

    thing = f"the {pick(COLOURS)} {pick(OBJECTS)}" if rng.random() < 0.6 else f"the {pick(OBJECTS)}"
    place = f" {pick(PLACES)}" if rng.random() < 0.6 else ""
    return f"{pick(VERBS)} {thing}{place} {pick(TAILS)}".strip()


def _sentence(rng: random.Random) -> str:
    text = _instruction(rng)
    if rng.random() < 0.3:
        text = f"{text} {rng.choice(_choices(LINKS))} {_instruction(rng)}"
    line = rng.choice(_choices(LINES))
    state = " ".join(str(rng.randrange(256)) for _ in range(rng.randrange(6, 15)))
    first, second = (text, state) if line.startswith("Task") else (str(rng.randrange(20)), text)
    filled = line.format(first, second) if line.count("{}") == 2 else line.format(text)
    return rng.choice((str.capitalize, str, str, str))(filled)


def _text_pieces(count: int) -> list[str]:
    rng = random.Random(0)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=itertools.chain((_sentence(rng) for _ in range(SENTENCES)), _characters()),
        model_writer=model,
        model_type="bpe",
        vocab_size=count + 3,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_digits=True,
        num_threads=1,
        minloglevel=2,
    )
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return [trained.id_to_piece(i) for i in range(trained.get_piece_size()) if not trained.is_control(i) and i]


def _characters() -> list[str]:
    """Every printable ASCII character, often enough to get a piece of its own."""
    return [chr(code) for code in range(33, 127)] * 3


def main() -> None:
    specials = [("<pad>", 0.0, 3), ("</s>", 0.0, 3), ("<s>", 0.0, 3), ("<unk>", 0.0, 2), ("\n", 0.0, 4)]
    locations = writer.location_pieces(LOCATIONS)
    fixed = [*specials, *writer.byte_pieces()]
    texts = _text_pieces(VOCABULARY - len(fixed) - len(locations))
    texts = texts[: VOCABULARY - len(fixed) - len(locations)]
    pieces = [*fixed, *writer.normal_pieces(texts), *locations]
    assert len(pieces) == VOCABULARY, f"only {len(pieces)} pieces: generate more sentences"
    OUTPUT.write_bytes(writer.serialize(pieces))
    print(f"{OUTPUT}: {len(pieces)} pieces, {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
