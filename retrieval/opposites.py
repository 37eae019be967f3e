"""Words that turn the meaning of an English sentence around: opposites, verb forms and auxiliaries."""

from __future__ import annotations

from functools import cache

# Two verbs with opposite meaning; all four regular forms of each are exchanged.
_VERBS = """
increase/decrease enlarge/reduce expand/shrink accelerate/decelerate activate/deactivate enable/disable
promote/inhibit stimulate/suppress upregulate/downregulate induce/prevent facilitate/impede improve/worsen
enhance/impair strengthen/weaken support/oppose accept/reject approve/disapprove permit/prohibit
include/exclude encourage/discourage attack/defend agree/disagree appear/disappear connect/disconnect create/destroy
succeed/fail enter/exit pass/fail praise/criticize raise/lower import/export
start/stop open/close attract/repel admit/deny confirm/refute trust/distrust obey/disobey
continue/discontinue qualify/disqualify assemble/disassemble install/uninstall encrypt/decrypt compress/decompress
add/remove insert/delete attach/detach push/pull lengthen/shorten widen/narrow heat/cool
love/hate hire/dismiss join/abandon arrive/depart ascend/descend inflate/deflate underestimate/overestimate
outperform/underperform maximize/minimize ease/aggravate favor/disfavor preserve/ruin
"""

# Verbs with an irregular form, spelt out; forms stand in the same order on both sides.
_IRREGULAR = """
win,wins,won,winning/lose,loses,lost,losing buy,buys,bought,buying/sell,sells,sold,selling
began/ended
gain,gains,gained,gaining/lose,loses,lost,losing
"""

# Words that are opposites in one form only. The first of several partners is the one that is put in.
_PLAIN = """
before/after above/below inside/outside within/beyond early/late earlier/later earliest/latest
first/last more/less most/least higher/lower highest/lowest high/low larger/smaller largest/smallest large/small
greater/lesser bigger/smaller biggest/smallest big/small longer/shorter longest/shortest long/short taller/shorter
tallest/shortest older/younger oldest/youngest faster/slower fastest/slowest fast/slow stronger/weaker
strongest/weakest strong/weak better/worse best/worst deeper/shallower deep/shallow wider/narrower wide/narrow
heavier/lighter heaviest/lightest hotter/colder hottest/coldest hot/cold warmer/cooler warm/cool wetter/drier wet/dry
richer/poorer richest/poorest rich/poor cheaper/costlier cheap/expensive easier/harder easiest/hardest easy/difficult
simpler/harder nearest/farthest nearer/farther many/few majority/minority maximum/minimum maximal/minimal
upper/lower northern/southern eastern/western north/south east/west northeast/southwest northwest/southeast
male/female man/woman men/women boy/girl boys/girls husband/wife father/mother son/daughter sons/daughters
brother/sister brothers/sisters actor/actress king/queen uncle/aunt nephew/niece widow/widower
positive/negative positively/negatively true/false correct/incorrect right-handed/left-handed
success/failure successes/failures victory/defeat victories/defeats
advantage/disadvantage advantages/disadvantages benefit/drawback benefits/drawbacks
presence/absence acceptance/rejection friend/enemy friends/enemies
ally/enemy allies/enemies peace/war birth/death entrance/exit arrival/departure
winter/summer spring/autumn morning/evening daytime/nighttime sunrise/sunset dawn/dusk
internal/external interior/exterior inner/outer indoor/outdoor indoors/outdoors domestic/foreign rural/urban
public/private ancient/modern temporary/permanent temporarily/permanently acute/chronic mild/severe
benign/malignant healthy/sick alive/dead guilty/innocent safe/dangerous useful/useless harmless/harmful
sharp/blunt smooth/rough thick/thin bright/dim clean/dirty
loud/quiet brave/cowardly generous/stingy polite/rude honest/dishonest loyal/disloyal wise/foolish
similar/different same/different equal/unequal identical/different symmetric/asymmetric
frequently/rarely often/rarely always/never usually/rarely commonly/rarely completely/partly entirely/partly
together/separately directly/indirectly quickly/slowly rapidly/slowly easily/hardly simultaneously/successively
voluntary/compulsory mandatory/optional obligatory/optional offline/online synchronous/asynchronous
local/global specific/general supervised/unsupervised linear/nonlinear convex/nonconvex
deterministic/stochastic static/dynamic centralized/decentralized homogeneous/heterogeneous
abundant/scarce sufficient/insufficient adequate/inadequate efficient/inefficient effective/ineffective
upstream/downstream upward/downward upwards/downwards forward/backward forwards/backwards clockwise/counterclockwise
ascending/descending vertical/horizontal vertically/horizontally parallel/perpendicular
dominant/recessive soluble/insoluble organic/inorganic fertile/infertile sweet/bitter
optimistic/pessimistic happy/unhappy lucky/unlucky popular/unpopular common/uncommon usual/unusual
important/unimportant significant/insignificant successful/unsuccessful successfully/unsuccessfully
possible/impossible probable/improbable likely/unlikely necessary/unnecessary known/unknown
certain/uncertain clear/unclear stable/unstable married/unmarried related/unrelated aware/unaware
available/unavailable official/unofficial officially/unofficially legal/illegal legally/illegally
constitutional/unconstitutional formal/informal complete/incomplete regular/irregular regularly/irregularly
visible/invisible mortal/immortal reversible/irreversible relevant/irrelevant rational/irrational
moral/immoral mature/immature perfect/imperfect logical/illogical literate/illiterate
legitimate/illegitimate reliable/unreliable friendly/unfriendly
healthy/unhealthy equal/unequal expected/unexpected finished/unfinished changed/unchanged paid/unpaid
damaged/undamaged affected/unaffected infected/uninfected treated/untreated used/unused defeated/undefeated
confirmed/unconfirmed identified/unidentified published/unpublished released/unreleased resolved/unresolved
authorized/unauthorized restricted/unrestricted limited/unlimited controlled/uncontrolled supported/unsupported
sorted/unsorted named/unnamed armed/unarmed protected/unprotected employed/unemployed with/without
"""

_PHRASES = """
able to/unable to, at least/at most, more than/less than, no longer/still, no one/everyone, none of/all of
"""

# Not the one is exactly the other: "not possible" may be said as "impossible".
_COMPLEMENTS_TEXT = """
possible known certain clear stable married related aware available official legal constitutional complete
visible true correct necessary successful alive guilty reversible relevant reliable expected finished changed
paid damaged affected infected treated used defeated confirmed identified published released resolved authorized
limited soluble common popular usual aware mandatory effective sufficient adequate
"""
_COMPLEMENTS = frozenset(_COMPLEMENTS_TEXT.split())

# Simple past and base form of verbs that statements are often made with.
_PAST = """
won/win lost/lose wrote/write became/become began/begin made/make took/take gave/give got/get went/go came/come
saw/see said/say told/tell found/find held/hold kept/keep left/leave led/lead met/meet paid/pay ran/run sang/sing
sold/sell sent/send spent/spend spoke/speak stood/stand taught/teach thought/think wore/wear built/build bought/buy
brought/bring broke/break chose/choose drew/draw drove/drive fell/fall fought/fight flew/fly grew/grow hid/hide
knew/know rose/rise shot/shoot understood/understand withdrew/withdraw died/die tried/try married/marry
studied/study carried/carry denied/deny applied/apply copied/copy buried/bury occupied/occupy
released/release starred/star appeared/appear directed/direct produced/produce moved/move served/serve lived/live
received/receive founded/found established/establish published/publish played/play worked/work joined/join
graduated/graduate attended/attend performed/perform recorded/record created/create featured/feature
included/include contained/contain reached/reach earned/earn achieved/achieve visited/visit discovered/discover
invented/invent introduced/introduce developed/develop designed/design ended/end started/start opened/open
closed/close signed/sign supported/support opposed/oppose defeated/defeat attacked/attack invaded/invade
killed/kill ordered/order allowed/allow refused/refuse accepted/accept rejected/reject announced/announce
premiered/premiere debuted/debut aired/air debated/debate reported/report showed/show used/use called/call
changed/change increased/increase decreased/decrease improved/improve reduced/reduce caused/cause
helped/help followed/follow returned/return entered/enter passed/pass failed/fail retired/retire resigned/resign
adopted/adopt divorced/divorce inspired/inspire influenced/influence portrayed/portray voiced/voice hosted/host
competed/compete participated/participate ruled/rule conquered/conquer claimed/claim agreed/agree survived/survive
stayed/stay remained/remain belonged/belong owned/own wanted/want needed/need required/require involved/involve
affected/affect ranked/rank scored/score hired/hire trained/train treated/treat
"""

_AUXILIARIES = """
is are was were can could will would must should has have had does did do
"""
AUXILIARIES = frozenset(_AUXILIARIES.split())
SHORT_FORMS = {
    "is not": "isn't", "are not": "aren't", "was not": "wasn't", "were not": "weren't", "can not": "can't",
    "cannot": "can't", "could not": "couldn't", "will not": "won't", "would not": "wouldn't",
    "should not": "shouldn't", "has not": "hasn't", "have not": "haven't", "had not": "hadn't",
    "does not": "doesn't", "did not": "didn't", "do not": "don't",
}  # fmt: skip
LONG_FORMS = {short: long for long, short in SHORT_FORMS.items() if long != "can not"}


@cache
def opposites() -> dict[str, str]:
    """Each word or group of words in lower case with its opposite."""
    table: dict[str, str] = {}
    for pair in (*_PLAIN.split(), *(phrase.strip() for phrase in _PHRASES.split(","))):
        _enter(table, *pair.split("/"))
    for pair in _IRREGULAR.split():
        for one, other in zip(*(side.split(",") for side in pair.split("/")), strict=True):
            _enter(table, one, other)
    for pair in _VERBS.split():
        for one, other in zip(*(_forms(verb) for verb in pair.split("/")), strict=True):
            _enter(table, one, other)
    return table


@cache
def complements() -> frozenset[str]:
    """Words whose opposite is the same as their denial, with those opposites: "not possible" is "impossible"."""
    table = opposites()
    return _COMPLEMENTS | {table[word] for word in _COMPLEMENTS}


@cache
def past_to_base() -> dict[str, str]:
    """Base form of each simple past that the rules know."""
    return dict(tuple(pair.split("/")) for pair in _PAST.split())  # type: ignore[misc]


@cache
def base_to_past() -> dict[str, str]:
    """Simple past of each base form that the rules know."""
    return {base: past for past, base in past_to_base().items()}


def _enter(table: dict[str, str], one: str, other: str) -> None:
    table.setdefault(one, other)
    table.setdefault(other, one)


def _forms(verb: str) -> tuple[str, str, str, str]:
    """Base, third person, past and -ing form of a regular verb."""
    if verb.endswith("y") and verb[-2] not in "aeou":
        return verb, verb[:-1] + "ies", verb[:-1] + "ied", verb + "ing"
    third = verb + ("es" if verb.endswith(("s", "sh", "ch", "x", "z")) else "s")
    if verb.endswith("e"):
        return verb, third, verb + "d", verb[:-1] + "ing"
    stem = verb + verb[-1] if verb in _DOUBLING else verb
    return verb, third, stem + "ed", stem + "ing"


_DOUBLING_TEXT = """
stop admit permit forget dispel repel compel
"""
_DOUBLING = frozenset(_DOUBLING_TEXT.split())
