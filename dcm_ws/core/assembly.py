"""
Builds the core: creates each of its objects once, and passes each the objects that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dcm_ws.core.agent_records import AgentRecords
from dcm_ws.core.agents import AgentMemory
from dcm_ws.core.application_hub import ApplicationHub
from dcm_ws.core.budgets import Allowance
from dcm_ws.core.callers import Callers
from dcm_ws.core.catchup import CatchUp
from dcm_ws.core.changed import Changed
from dcm_ws.core.charges import Charges
from dcm_ws.core.clients import Clients
from dcm_ws.core.counts import Counts
from dcm_ws.core.dead_letters import DeadLetters
from dcm_ws.core.delivery import DeliveryQueue
from dcm_ws.core.entitlement import Entitlement
from dcm_ws.core.event_records import EventRecords
from dcm_ws.core.expulsion import Expulsion
from dcm_ws.core.giving_up import GivingUp
from dcm_ws.core.grants import Grants
from dcm_ws.core.hub import Hub
from dcm_ws.core.identity import Identity
from dcm_ws.core.interpreter import Interpreter
from dcm_ws.core.journal import Journal
from dcm_ws.core.key_ring import KeyRing
from dcm_ws.core.keys import PublishKeys
from dcm_ws.core.latest import LatestEvents
from dcm_ws.core.ledger import Ledger
from dcm_ws.core.liveness import Liveness
from dcm_ws.core.loading import Loading
from dcm_ws.core.other_nodes import OtherNodes
from dcm_ws.core.ownership import Ownership
from dcm_ws.core.pooled import Pool
from dcm_ws.core.ports import Bus, Log, Owners, World
from dcm_ws.core.presence import Presence
from dcm_ws.core.private_readers import PrivateReaders
from dcm_ws.core.publishing import Publishing
from dcm_ws.core.readers import Readers
from dcm_ws.core.redriving import Redriving
from dcm_ws.core.registry import ChannelRegistry
from dcm_ws.core.resumption import Resumption
from dcm_ws.core.retrying import Retrying
from dcm_ws.core.revocations import Revocations
from dcm_ws.core.router import Router
from dcm_ws.core.rules import Rules
from dcm_ws.core.session import Session
from dcm_ws.core.settling import Settling
from dcm_ws.core.stats import Stats
from dcm_ws.core.whereabouts import Whereabouts
from dcm_ws.protocol.channels import Channels
from dcm_ws.protocol.events import Ephemeral, Publishable
from dcm_ws.protocol.web_tokens import ANY_AUDIENCE, Audience


@dataclass(frozen=True, slots=True)
class Core:
    """
    The parts of the core.  The builder of the service passes single parts on, and never the whole object.
    """

    world: World
    rules: Rules
    counts: Counts
    clients: Clients
    registry: ChannelRegistry[Session]
    deliveries: DeliveryQueue
    memory: AgentMemory
    letters: DeadLetters
    keys: PublishKeys
    log: Log
    ledger: Ledger
    grants: Grants
    router: Router
    liveness: Liveness
    presence: Presence
    identity: Identity
    hub: Hub
    application_hub: ApplicationHub
    retrying: Retrying
    redriving: Redriving
    charges: Charges
    publishing: Publishing
    callers: Callers
    readers: Readers
    expulsion: Expulsion
    whereabouts: Whereabouts
    records: AgentRecords
    events: EventRecords
    journal: Journal
    loading: Loading
    ownership: Ownership
    interpreter: Interpreter
    stats: Stats


def assemble(
    world: World,
    rules: Rules,
    counts: Counts,
    *,
    server: str,
    secrets: Sequence[str],
    audience: Audience = ANY_AUDIENCE,
    max_connections: int,
    channels: Channels,
    publishable: Publishable,
    latest: LatestEvents,
    deliveries: DeliveryQueue,
    memory: AgentMemory,
    letters: DeadLetters,
    keys: PublishKeys,
    log: Log,
    ephemeral: Ephemeral,
    changed: Changed,
    ledger: Ledger,
    max_pending: int,
    keep_durable: float,
    owners: Owners | None = None,
    bus: Bus | None = None,
    pool: Callable[[str, Allowance], Pool] | None = None,
    clients_elsewhere: Callable[[], int] | None = None,
    hub: type[Hub] = Hub,
    interpreter: type[Interpreter] = Interpreter,
) -> Core:
    """
    Build the core.  The function is long because it is one list of parts, each with its constructor arguments.

    @param server: the name and version sent to clients.
    @param secrets: the secrets that may sign tokens.
    @param audience: what JSON Web Tokens have to be for.
    @param max_connections: the maximum number of concurrent clients.
    @param channels: the channels that exist.
    @param publishable: the events that clients may publish.
    @param latest: the events of which only the latest matters.
    @param deliveries: counts in C{counts}, as do C{memory} and C{letters}.
    @param changed: what C{deliveries} and C{memory} have got.
    @param ledger: what C{deliveries} has got.
    @param keep_durable: seconds for which the deliveries of absent agents are kept while there is a journal.
    @param owners: knows which node has which agent; None if this is the only node.
    @param bus: to the other nodes; None if there are none.
    @param pool: as in L{Grants}.
    @param clients_elsewhere: as in L{Hub}.
    @param hub: the class of the hub.
    @param interpreter: the class of the interpreter.
    """
    clients = Clients(private_readers=PrivateReaders() if rules.strict_private else None)
    entitlement = Entitlement(rules)
    revocations = Revocations(counts.limits.max_revoked)
    registry: ChannelRegistry[Session] = ChannelRegistry(lambda: log.head)
    grants = Grants(rules, world.now, pool)
    liveness = Liveness(world, rules, counts, clients)
    giving_up = GivingUp(counts, clients=clients, letters=letters, changed=changed, ledger=ledger)
    catch_up = CatchUp(
        counts,
        log=log,
        clients=clients,
        registry=registry,
        deliveries=deliveries,
        giving_up=giving_up,
        changed=changed,
        ledger=ledger,
        max_pending=max_pending,
    )
    router = Router(
        world,
        rules,
        counts,
        channels=channels,
        latest=latest,
        clients=clients,
        registry=registry,
        deliveries=deliveries,
        log=log,
        ephemeral=ephemeral,
        catch_up=catch_up,
        ledger=ledger,
        bus=bus,
    )
    other_nodes = OtherNodes(counts, clients=clients, owners=owners)
    resumption = Resumption(
        world,
        rules,
        counts,
        channels=channels,
        registry=registry,
        deliveries=deliveries,
        memory=memory,
        clients=clients,
        letters=letters,
        catch_up=catch_up,
        changed=changed,
        other_nodes=other_nodes,
    )
    settling = Settling(
        world.now,
        deliveries=deliveries,
        memory=memory,
        clients=clients,
        letters=letters,
        catch_up=catch_up,
        changed=changed,
        resumption=resumption,
        other_nodes=other_nodes,
        ledger=ledger,
        early_acks=counts.limits.early_acks,
    )
    journal = Journal(changed=changed, clients=clients, memory=memory, letters=letters, catch_up=catch_up, log=log)
    loading = Loading(
        world,
        channels=channels,
        clients=clients,
        memory=memory,
        letters=letters,
        resumption=resumption,
        journal=journal,
        log=log,
        keep_deliveries=keep_durable,
    )
    ownership = Ownership(
        world,
        counts,
        clients=clients,
        memory=memory,
        letters=letters,
        deliveries=deliveries,
        catch_up=catch_up,
        registry=registry,
        resumption=resumption,
        settling=settling,
        journal=journal,
        loading=loading,
        changed=changed,
        owners=owners,
    )
    redriving = Redriving(clients=clients, letters=letters, catch_up=catch_up, ledger=ledger)
    presence = Presence(world, router, clients, registry=registry, bus=bus, ownership=ownership, ledger=ledger)
    identity = Identity(
        world,
        rules,
        secrets,
        audience,
        keys=KeyRing(world.now, counts),
        revocations=revocations,
        entitlement=entitlement,
        clients=clients,
        registry=registry,
        grants=grants,
        liveness=liveness,
        presence=presence,
        resumption=resumption,
        catch_up=catch_up,
        changed=changed,
    )
    the_hub = hub(
        world,
        rules,
        counts,
        server=server,
        max_connections=max_connections,
        clients_elsewhere=clients_elsewhere,
        clients=clients,
        registry=registry,
        deliveries=deliveries,
        memory=memory,
        letters=letters,
        keys=keys,
        log=log,
        ledger=ledger,
        catch_up=catch_up,
        grants=grants,
        router=router,
        liveness=liveness,
        presence=presence,
        resumption=resumption,
        identity=identity,
        entitlement=entitlement,
        journal=journal,
        ownership=ownership,
        owners=owners,
    )
    log.attach(router.deliver, the_hub.reset)
    charges = Charges(world.now, counts, the_hub.close)
    publishing = Publishing(
        world, rules, counts, channels=channels, publishable=publishable, keys=keys, router=router, log=log
    )
    return Core(
        world=world,
        rules=rules,
        counts=counts,
        clients=clients,
        registry=registry,
        deliveries=deliveries,
        memory=memory,
        letters=letters,
        keys=keys,
        log=log,
        ledger=ledger,
        grants=grants,
        router=router,
        liveness=liveness,
        presence=presence,
        identity=identity,
        hub=the_hub,
        application_hub=ApplicationHub(router=router, keys=keys, letters=letters, redriving=redriving),
        retrying=Retrying(counts, deliveries=deliveries, giving_up=giving_up, resumption=resumption),
        redriving=redriving,
        charges=charges,
        publishing=publishing,
        callers=Callers(
            world,
            rules,
            counts,
            clients=clients,
            identity=identity,
            entitlement=entitlement,
            grants=grants,
            router=router,
        ),
        readers=Readers(
            counts,
            clients=clients,
            registry=registry,
            log=log,
            liveness=liveness,
            catch_up=catch_up,
            has_room=the_hub.has_room,
        ),
        expulsion=Expulsion(
            world, clients=clients, revocations=revocations, presence=presence, bus=bus, close=the_hub.close
        ),
        whereabouts=Whereabouts(
            world, clients=clients, registry=registry, catch_up=catch_up, presence=presence, bus=bus
        ),
        records=AgentRecords(clients=clients, memory=memory, letters=letters, journal=journal, redriving=redriving),
        events=EventRecords(log, ledger),
        journal=journal,
        loading=loading,
        ownership=ownership,
        interpreter=interpreter(
            world,
            rules,
            counts,
            channels=channels,
            publishing=publishing,
            registry=registry,
            deliveries=deliveries,
            router=router,
            resumption=resumption,
            settling=settling,
            catch_up=catch_up,
            charges=charges,
            changed=changed,
            close=the_hub.close,
            authenticate=the_hub.authenticate,
            resume=the_hub.resume,
        ),
        stats=Stats(
            counts,
            clients=clients,
            registry=registry,
            deliveries=deliveries,
            memory=memory,
            letters=letters,
            keys=keys,
            log=log,
        ),
    )
