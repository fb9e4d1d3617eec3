"""Whatever a pool holds is shown as text: captions, keys and reasons may be written by anybody."""


def test_captions_keys_and_reasons_are_text(hostile, hostile_captions, parse):
    tree = parse(hostile.page)
    cards = tree.find("article", "card")
    captions = {caption.text.strip() for card in cards for caption in card.find("p", "caption")}
    for key in ("script", "image", "comment", "'q'"):
        (text,) = (caption for name, caption in hostile_captions.items() if key in name)
        assert " ".join(text.split()) in {" ".join(caption.split()) for caption in captions}
    places = {card.find("p", "where")[0].words for card in cards}
    assert """shard <i>shard key it's "q" <b> & 'q' onload=1""" in places
    assert any("<script>alert(1)" in card.words for card in cards)
    assert {one.attributes.get("type") for one in tree.find("script")} == {None, "application/json"}
    assert len(tree.find("script")) == 3
    assert all(image.attributes["src"].startswith("data:") for image in tree.find("img"))


def test_long_captions_are_cut_and_say_so(hostile, parse):
    (long,) = {
        caption.words
        for card in parse(hostile.page).find("article", "card")
        for caption in card.find("p", "caption")
        if caption.words.startswith("xxx")
    }
    assert "(5,000 bytes)" in long
    assert long.count("x") == 300
