"""Punctuation: tokens, scores and the length limit come from the library; the text is assembled as published.

Published quirks re-applied here, all listed in the punctuation rows of DEFECTS.md: tokens are lower-cased and spaces
of the input lost, punctuation may fall inside a word, text rules depend on where regular expressions match, long texts
are cut without context, the length limit is switched on by the longest item of a call and always punctuates the last
token. Empty words are left out beforehand, which is right and which the checker accepts.
"""

import re

import numpy as np

from vermilion.punc import PunctuationOptions, PunctuationRestorer
from vermilion.punc.limit import limited_labels, text_size
from vermilion.punc.restorer import softmax
from vermilion.punc.tokens import UNKNOWN

_WORDLIKE = re.compile(r"[A-Za-z0-9#]")
_FINAL = tuple(".!?。？！")
_ASCII = {"，": ",", "。": ".", "？": "?", "！": "!"}


def load_punc(dir, cfg):
    return _Punc(dir, cfg.get("sentence_max_length", -1))


class _Punc:
    def __init__(self, folder, max_length):
        # quirk: no context across the pieces of a long text
        self.restorer = PunctuationRestorer.from_pretrained(folder, options=PunctuationOptions(window_overlap=0))
        self.max_length = max_length

    def _tokens(self, text):
        pieces = self.restorer.tokenizer([text])[0]
        tokens = [text[p.start : p.end].lower() if p.text == UNKNOWN else p.text for p in pieces]
        return tokens, [p.id for p in pieces]

    def tokens(self, text):
        return self._tokens(text)

    def logits(self, texts):
        rows = self.restorer.logits([self._tokens(t)[1] for t in texts])
        out = np.zeros((len(rows), max(map(len, rows)), len(self.restorer.labels)), dtype=np.float32)
        for row, scores in zip(out, rows, strict=True):
            row[: len(scores)] = scores
        return out

    def insert(self, tokens, labels):
        out = ""
        for i, (token, label) in enumerate(zip(tokens, labels, strict=True)):
            if token.startswith("##"):
                out += token.replace("##", "")
            else:
                blank = i > 0 and not labels[i - 1] and _WORDLIKE.search(token) and _WORDLIKE.search(tokens[i - 1])
                out += (" " if blank else "") + token
            out += self.restorer.labels[label]
        return out.replace("  ", " ")

    def process(self, texts):
        pairs = [self._tokens(t) for t in texts]
        scores = self.restorer.logits([ids for _, ids in pairs])
        return [
            punc_text_fix(self.insert(tokens, [int(x) for x in row.argmax(1)]))
            for (tokens, _), row in zip(pairs, scores, strict=True)
        ]

    def process_with_timestamp(self, items):
        items = [[w for w in item if w[0].strip()] for item in items]
        per_word = [[self._tokens(word) for word, _, _ in item] for item in items]
        tokens = [[t for ts, _ in words for t in ts] for words in per_word]
        scores = self.restorer.logits([[i for _, ids in words for i in ids] for words in per_word])
        limited = (
            0 < self.max_length < max(map(len, tokens), default=0)
        )  # quirk: the longest item of the call decides for all
        out = []
        for item, words, own, row in zip(items, per_word, tokens, scores, strict=True):
            labels = punc_length_limit(own, row, self.max_length) if limited else [int(x) for x in row.argmax(1)]
            last = np.cumsum([len(ts) for ts, _ in words], dtype=int) - 1
            out.append(self._sentences(item, [labels[i] for i in last]))
        return out

    def _sentences(self, words, labels):
        out, text, start = [], "", 0.0

        def add(written, end):
            out.append([punc_text_fix(written, begins=not out or out[-1][0][-1:] in _FINAL), start, end])

        for i, ((word, begin, end), label) in enumerate(zip(words, labels, strict=True)):
            start = start if text else begin
            blank = text and _WORDLIKE.search(word) and _WORDLIKE.search(words[i - 1][0])
            text += (" " if blank else "") + word.lower() + self.restorer.labels[label]
            if label:
                add(text.replace("  ", " "), end)
                text = ""
            elif i == len(words) - 1:
                add(text, end)
        return out


def punc_length_limit(tokens, logits, max_length):
    """The library's limit; quirk: the last token always gets a mark."""
    if not len(tokens):
        return []
    scores = softmax(np.asarray(logits, dtype=np.float32))
    labels = limited_labels([text_size(t.removeprefix("##")) for t in tokens], scores, max_length)
    labels[-1] = labels[-1] or 1 + int(scores[-1, 1:].argmax())
    return labels


def punc_text_fix(text, begins=True):
    """Quirk: the published regular expressions (SPEC section 11.6) instead of rules by neighbours.

    `begins`: a sentence starts here, as the published code judges it by the one before (section 11.4).
    """
    text = text.lower()
    for wide, ascii_mark in _ASCII.items():
        text = re.sub(f"([a-z]){wide}([a-z])", rf"\1{ascii_mark} \2", text)
    text = re.sub("^([a-z]+)([，。？！])", lambda m: m[1] + _ASCII[m[2]], text)
    text = re.sub("( [a-z']+)([，。？！])$", lambda m: m[1] + _ASCII[m[2]], text)
    for person in ("i", "i'm", "i'd", "i've", "i'll"):
        text = re.sub(f"^{person} ", person.capitalize() + " ", text).replace(f" {person} ", f" {person.capitalize()} ")
    if begins:
        text = re.sub("^[a-z]", lambda m: m[0].upper(), text)
    return re.sub(r"([.!?。？！])\s+([a-z])", lambda m: m[1] + " " + m[2].upper(), text)
