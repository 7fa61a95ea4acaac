//! Follows netlink: what a notification does not tell for certain is read anew; a connection that ends is opened again.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::channel::mpsc::UnboundedReceiver;
use futures::{FutureExt, StreamExt};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;
use rtnetlink::packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use rtnetlink::sys::{AsyncSocket, SocketAddr};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder, new_connection, new_multicast_connection};
use tokio::sync::watch;

use super::routes::{RoutesKept, Upkeep, Word};
use super::{Framing, Link, Links};

/// After a failure the links are read anew after this long.
const AGAIN: Duration = Duration::from_secs(1);
/// A list that changed while it was read is read again at once, so many times.
const READINGS: u32 = 10;
/// Notifications may wait in so many octets of the kernel: a router that learns a full table sends them in bursts.
const BACKLOG: usize = 2 << 20;

/// Begins to watch the links of this namespace. The receiver holds the present state from the start and is told of every
/// change until it is dropped. `servers` tells the addresses to which the ways are wanted: other routes are not kept.
///
/// A route that changes is taken from its notification, a filter is only told of. Links, what is not certain by a notification
/// alone, and notifications that the kernel had to drop (`ENOBUFS`) are met by reading anew; a connection that ends is opened anew.
/// None of it ends the watch.
pub async fn watch(mut servers: watch::Receiver<Vec<IpAddr>>) -> Result<watch::Receiver<Links>> {
    let source = Source::open()?;
    let present = source.read(&mut servers).await?;
    let (sender, receiver) = watch::channel(present.shown());
    tokio::spawn(follow(source, present, servers, sender));
    Ok(receiver)
}

/// What is known of links and routes.
struct Present {
    by_index: BTreeMap<u32, Link>,
    routes: RoutesKept,
    /// See [`Links::filter_changes`].
    filter_changes: u64,
}

impl Present {
    fn shown(&self) -> Links {
        let Self { by_index, routes, filter_changes } = self;
        Links { by_index: by_index.clone(), routes: routes.sorted(), filter_changes: *filter_changes }
    }

    /// Notes a notification and answers with what it calls for.
    fn note(&mut self, notification: NetlinkMessage<RouteNetlinkMessage>) -> Upkeep {
        let replaces = notification.header.flags & NLM_F_REPLACE != 0;
        let NetlinkPayload::InnerMessage(message) = notification.payload else {
            // Some were dropped: anything may have happened.
            self.filter_changes += 1;
            return Upkeep::All;
        };
        match message {
            RouteNetlinkMessage::NewRoute(route) => {
                self.routes.note(if replaces { Word::Replaced } else { Word::Made }, &route)
            }
            RouteNetlinkMessage::DelRoute(route) => self.routes.note(Word::Gone, &route),
            RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_) => Upkeep::Links,
            RouteNetlinkMessage::NewTrafficFilter(_)
            | RouteNetlinkMessage::DelTrafficFilter(_)
            | RouteNetlinkMessage::NewTrafficChain(_)
            | RouteNetlinkMessage::DelTrafficChain(_)
            | RouteNetlinkMessage::NewTrafficClass(_)
            | RouteNetlinkMessage::DelTrafficClass(_)
            | RouteNetlinkMessage::NewTrafficAction(_)
            | RouteNetlinkMessage::DelTrafficAction(_)
            | RouteNetlinkMessage::NewQueueDiscipline(_)
            | RouteNetlinkMessage::DelQueueDiscipline(_) => {
                self.filter_changes += 1;
                Upkeep::Noted
            }
            _ => Upkeep::All,
        }
    }

    /// Tells whether the kernel may have taken routes away since these links were read: it says nothing of those whose link went down,
    /// went away, or joined another.
    fn may_have_lost_routes(&self, before: &BTreeMap<u32, Link>) -> bool {
        let stays = |(index, link): (&u32, &Link)| {
            self.by_index.get(index).is_some_and(|now| (now.up, now.master) == (link.up, link.master))
        };
        let is_up = |index: u32| self.by_index.get(&index).is_some_and(|link| link.up);
        !before.iter().all(stays) || self.routes.leads_elsewhere(is_up)
    }
}

/// Goes on until nobody listens any more.
async fn follow(
    mut source: Source,
    mut present: Present,
    mut servers: watch::Receiver<Vec<IpAddr>>,
    sender: watch::Sender<Links>,
) {
    loop {
        let upkeep = tokio::select! {
            () = sender.closed() => return,
            upkeep = source.changed(&mut present) => upkeep,
            Ok(()) = servers.changed() => Ok(Upkeep::All),
        };
        let kept = match upkeep {
            Ok(Upkeep::Nothing) => continue,
            Ok(upkeep) => source.keep_up(&mut present, upkeep, &mut servers).await,
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            tracing::warn!("links could not be read, the netlink connection is made anew: {error:#}");
            let filter_changes = present.filter_changes + 1;
            let Some((anew, read)) = reopen(&sender, &mut servers).await else { return };
            (source, present) = (anew, Present { filter_changes, ..read });
        }
        let links = present.shown();
        sender.send_if_modified(|shown| {
            let changed = *shown != links;
            *shown = links;
            changed
        });
    }
}

/// Makes a new connection and reads the links over it, as often as it takes; `None` once nobody listens any more.
async fn reopen(
    sender: &watch::Sender<Links>,
    servers: &mut watch::Receiver<Vec<IpAddr>>,
) -> Option<(Source, Present)> {
    while !sender.is_closed() {
        let read = async {
            let source = Source::open()?;
            let present = source.read(servers).await?;
            Ok::<_, anyhow::Error>((source, present))
        };
        match read.await {
            Ok(opened) => return Some(opened),
            Err(error) => tracing::warn!(again = ?AGAIN, "links cannot be read: {error:#}"),
        }
        tokio::time::sleep(AGAIN).await;
    }
    None
}

/// Two netlink sockets: one is told of changes, the other asks. So a burst of notifications cannot crowd out answers, and
/// nobody else's sequence number is taken for one of ours.
struct Source {
    handle: Handle,
    notifications: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    listener: tokio::task::JoinHandle<()>,
}

impl Source {
    fn open() -> Result<Self> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route, MulticastGroup::Tc];
        let (mut listener, _, notifications) =
            new_multicast_connection(&groups).context("opening a netlink socket for links, routes and filters")?;
        // Without the right to more room there are drops, which are noticed.
        let _ = setsockopt(listener.socket_mut().socket_ref(), RcvBufForce, &BACKLOG);
        let (mut asker, handle, _) = new_connection().context("opening a netlink socket to ask for links")?;
        // Without its last message a list that was cut off would look complete.
        asker.set_forward_done(true);
        tokio::spawn(asker);
        Ok(Self { handle, notifications, listener: tokio::spawn(listener) })
    }

    /// Waits for the next notification, notes it and those that came with it, and answers with what they call for; fails when there
    /// will be none any more.
    ///
    /// Dropped notifications are one as well: netlink-proto tells of them by a message of its own (`NLMSG_OVERRUN`), after it has
    /// emptied the socket.
    async fn changed(&mut self, present: &mut Present) -> Result<Upkeep> {
        let (first, _) = self.notifications.next().await.context("the netlink connection has ended")?;
        let mut upkeep = present.note(first);
        while let Some(Some((notification, _))) = self.notifications.next().now_or_never() {
            upkeep = upkeep.max(present.note(notification));
        }
        Ok(upkeep)
    }

    /// Reads anew what has to be.
    async fn keep_up(
        &self,
        present: &mut Present,
        upkeep: Upkeep,
        servers: &mut watch::Receiver<Vec<IpAddr>>,
    ) -> Result<()> {
        match upkeep {
            Upkeep::Nothing | Upkeep::Noted => {}
            Upkeep::Links => {
                let before = std::mem::replace(&mut present.by_index, self.read_links().await?);
                if present.may_have_lost_routes(&before) {
                    present.routes = self.read_routes(servers).await?;
                }
            }
            Upkeep::All => {
                (present.by_index, present.routes) = (self.read_links().await?, self.read_routes(servers).await?);
            }
        }
        Ok(())
    }

    async fn read(&self, servers: &mut watch::Receiver<Vec<IpAddr>>) -> Result<Present> {
        let (by_index, routes) = (self.read_links().await?, self.read_routes(servers).await?);
        Ok(Present { by_index, routes, filter_changes: 0 })
    }

    async fn read_links(&self) -> Result<BTreeMap<u32, Link>> {
        let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let mut links = BTreeMap::new();
        let take = |links: &mut BTreeMap<u32, Link>, message| {
            if let RouteNetlinkMessage::NewLink(message) = message {
                links.extend(link(&message));
            }
        };
        self.list(question, &mut links, take).await.context("reading links")?;
        Ok(links)
    }

    /// Each route is looked at as it comes: a list of all would not fit into a small gateway.
    async fn read_routes(&self, servers: &mut watch::Receiver<Vec<IpAddr>>) -> Result<RoutesKept> {
        let mut routes = RoutesKept::new(servers.borrow_and_update().clone());
        let take = |routes: &mut RoutesKept, message| {
            if let RouteNetlinkMessage::NewRoute(message) = message {
                routes.take(&message);
            }
        };
        for family in [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()] {
            let question = RouteNetlinkMessage::GetRoute(family);
            self.list(question, &mut routes, take).await.context("reading routes")?;
        }
        Ok(routes)
    }

    /// Adds what a question asks for to what is there already: complete, and of one moment, or an error.
    async fn list<T: Clone>(
        &self,
        question: RouteNetlinkMessage,
        taken: &mut T,
        take: impl Fn(&mut T, RouteNetlinkMessage),
    ) -> Result<()> {
        for _ in 0..READINGS {
            let mut now = taken.clone();
            if self.list_once(question.clone(), |message| take(&mut now, message)).await? {
                *taken = now;
                return Ok(());
            }
        }
        bail!("the list changed each of the {READINGS} times it was read")
    }

    /// False when the list changed while the kernel wrote it (`NLM_F_DUMP_INTR`): something may be missing from it.
    async fn list_once(
        &self,
        question: RouteNetlinkMessage,
        mut take: impl FnMut(RouteNetlinkMessage),
    ) -> Result<bool> {
        let mut message = NetlinkMessage::from(question);
        message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut answers = self.handle.clone().request(message)?;
        let mut torn = false;
        while let Some(answer) = answers.next().await {
            torn |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => take(message),
                NetlinkPayload::Done(_) => return Ok(!torn),
                NetlinkPayload::Error(error) => bail!("the kernel answered: {error}"),
                NetlinkPayload::Noop | NetlinkPayload::Overrun(_) => {}
                _ => bail!("an answer that netlink does not know"),
            }
        }
        bail!("the answer was cut off")
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// The link that a message of the kernel tells of.
pub(super) fn link(message: &LinkMessage) -> Option<(u32, Link)> {
    let index = message.header.index;
    let framing = match message.header.link_layer_type {
        LinkLayerType::Ether | LinkLayerType::Loopback => Framing::Ethernet,
        _ => Framing::RawIp,
    };
    let mut name = None;
    let (mut kind, mut lower, mut master, mut abroad) = (String::new(), None, None, false);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(written) => name = Some(written.clone()),
            LinkAttribute::Link(index) => lower = Some(*index),
            // The link below, or the other end, is in another namespace.
            LinkAttribute::LinkNetNsId(_) => abroad = true,
            LinkAttribute::Controller(index) => master = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                let mut kinds = infos.iter().filter_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
                kind = kinds.next_back().unwrap_or_default();
            }
            _ => {}
        }
    }
    let name = name?;
    let up = message.header.flags.contains(LinkFlags::Up);
    // Channels can only be made of a modem in raw-IP mode.
    let channels = if framing == Framing::RawIp && kind.is_empty() { channels(&name, index) } else { Vec::new() };
    let exists = |other: &u32| *other != 0 && *other != index;
    let lower = lower.filter(exists).filter(|_| !abroad);
    Some((index, Link { name, up, framing, kind, lower, master: master.filter(exists), channels }))
}

/// The channels that `qmi_wwan` has made of a modem's link. They have neither a kind nor an `IFLA_LINK`: only sysfs shows them.
fn channels(name: &str, index: u32) -> Vec<String> {
    let directory = Path::new("/sys/class/net").join(name);
    // /sys may show another namespace than the one we live in.
    let shown = std::fs::read_to_string(directory.join("ifindex")).ok().and_then(|text| text.trim().parse().ok());
    if shown != Some(index) {
        return Vec::new();
    }
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter_map(|name| name.strip_prefix("upper_").filter(|upper| upper.starts_with("qmimux")).map(str::to_owned))
        .collect()
}

/// Reads a datagram of the kernel as a list of links and routes, and as notifications of what has changed, for the fuzzer.
#[cfg(fuzzing)]
pub fn hear(datagram: &[u8], servers: Vec<IpAddr>) -> Links {
    let mut present = Present { by_index: BTreeMap::new(), routes: RoutesKept::new(servers), filter_changes: 0 };
    let mut rest = datagram;
    while let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) {
        let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
        match &message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(told)) => present.by_index.extend(link(told)),
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(told)) => present.routes.take(told),
            _ => {}
        }
        present.note(message);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    present.shown()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No server's address is known.
    fn nobody() -> watch::Receiver<Vec<IpAddr>> {
        watch::channel(Vec::new()).1
    }

    #[tokio::test]
    async fn a_netlink_connection_that_ends_is_made_anew_and_the_links_are_read_again() {
        let source = Source::open().unwrap();
        source.listener.abort();
        let (sender, mut receiver) = watch::channel(Links::default());
        let nothing = Present { by_index: BTreeMap::new(), routes: RoutesKept::default(), filter_changes: 0 };
        let following = tokio::spawn(follow(source, nothing, nobody(), sender));
        receiver.changed().await.unwrap();
        assert!(receiver.borrow().named("lo").is_some());
        assert!(!following.is_finished());
        drop(receiver);
        following.await.unwrap();
    }

    #[tokio::test]
    async fn a_list_that_is_cut_off_is_not_taken_for_the_whole() {
        let source = Source::open().unwrap();
        assert!(source.read(&mut nobody()).await.unwrap().shown().named("lo").is_some());
        let (connection, handle, _) = new_connection().unwrap();
        drop(connection);
        let mut cut = Source::open().unwrap();
        cut.handle = handle;
        assert!(cut.read(&mut nobody()).await.is_err());
    }
}
