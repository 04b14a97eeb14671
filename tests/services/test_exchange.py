import time

from tests.federation import *
from tests.federation import match_ledgers


async def test_smoke(fed):
    t=time.time()
    a, b = await fed.nodes("a", "b")
    print("built", time.time()-t)
    t=time.time()
    sent = await a.trace(b)
    await a.becomes(sent, "delivered")
    print("delivered", time.time()-t)
    await match_ledgers(a,b)
    print("verified", time.time()-t)
    (m,) = await fed.strangers("m")
    p = m.parcel(b)
    print(await m.give(b, p))
    print(await m.give(b, p))
    print(await b.kinds())
    t=time.time()
async def test_smoke2(fed):
    t=time.time()
    a, b = await fed.nodes("a", "b")
    print("built", time.time()-t)
