"""Word lists of the rules for noun chunks. All are lower-case basic forms."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ABSTRACT = _words("""
    ability abstract abstraction abundance action activity adventure advice age aim air amount analysis anger angle
    animation anniversary anxiety appearance area art aspect atmosphere attempt attention attitude autumn awareness
    background balance beauty beginning behavior belief birth birthday blue bokeh bottom breath breeze business care
    career case celebration center challenge chance change chaos character childhood choice christmas city climate
    close-up closeup cold color colour comfort communication competition composition concentration concept condition
    confidence connection contact control cooking copyspace corner country couple creativity culture dance danger
    darkness dawn day daylight daytime death decision decline defeat delight depression depth design detail
    development difference direction discovery discussion distance dream dusk ecology economy edge education effect
    effort elegance emotion end energy entertainment environment equality evening event exercise experience
    explosion expression fall fashion fear feeling festival fight film finance fitness focus fog footage foreground
    form frame freedom freshness friendship front fun future game glow grace grief growth half happiness harmony
    haze health healthcare heat height help history holiday hope hour idea illness image imagination impression
    inspiration interest isolation journey joy kind knowledge landscape laughter left leisure length life lifestyle
    light lighting line look loop loss lot love luck magic manner marketing meal meaning medicine meditation memory
    method middle midnight mind minute mist moment money month mood moonlight morning motion movement music nature
    news night noise noon nothing number ocean one opportunity outdoors pace pain panorama part party passion past
    pattern peace perspective photography place plan play pleasure point pose position power prayer preparation
    presentation problem process profile progress protection purpose quality rain reality recreation reflection
    relationship relaxation religion resolution rest result rhythm right romance rotation routine sadness safety
    scale scene scenery science sea season second sensation sense sequence series service shade shadow shape shot
    show side sight silence silhouette situation size skill sky sleep slow-motion slowmotion smell smile smoke snow
    snowfall social solution song sorrow sort sound space speed spirit sport spring stage standing start state step
    stillness storm story strategy strength stress structure studio stuff style success summer sun sunlight sunrise
    sunset sunshine surface surprise swimming talk taste teamwork technology temperature tenderness texture theme
    thing thinking thought time time-lapse timelapse title top touch tour tourism town tradition traffic training
    tranquility travel trip truth turn twilight type use vacation variety vibration victory video view village
    violence vision vitality volume walk war warmth water wave way wealth weather week weekend wellness wide width
    wind winter wisdom wonder work workout world year yoga youth zoom
""")
"""Words for what has no box: ideas, times, weather, light, scenery without edges, and words about the video itself."""

GROUPS = _words("""
    army assortment audience band batch bunch cattle choir class collection colony committee company couple crew
    crowd dozen duo family fleet flock folk gang group herd jury litter lot majority mob multitude orchestra pack
    pair people pile police population public row series set staff swarm team trio troop youth
""")
"""Singular words for several things."""

THINGS_IN_COMPOUNDS = frozenset({"end", "frame", "light", "line", "point", "series", "stage", "surface", "top"})
"""Of the abstract words, those that are things behind another noun: a traffic light, a picture frame, a crop top."""

SINGULAR_NUMBERS = frozenset({"1", "one", "a", "an", "single"})
"""Numbers that do not make a chunk plural."""

ENGLISH = _words("""
    a an and are as at be by for from has have her his in into is it its near of off on or over she that the their
    them there they this through to under up was while who with
""")
"""Frequent words of English captions."""

OTHER_LANGUAGES = _words("""
    al au auf aus av avec bei com con da dans das de del dem den der des di dos ein eine einem einen einer el en er
    et ett het il im ist je jest la las le les lo los mit na nad nicht och og op os par para per por pour på que se
    sich sobre som su sur til ud um uma un una und une van von voor zu zum zur è é
""")
"""Frequent words of Spanish, French, German, Italian, Portuguese, Dutch, Swedish, Danish and Polish captions that are
no English words."""
