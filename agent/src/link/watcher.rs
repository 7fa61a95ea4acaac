//! Follows netlink: a notification leads to reading all links and routes anew, or tells of a filter; a connection that ends is opened again.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::channel::mpsc::UnboundedReceiver;
use futures::{FutureExt, StreamExt};
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use rtnetlink::sys::SocketAddr;
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder, new_connection, new_multicast_connection};
use tokio::sync::watch;

use super::routes::routes_out;
use super::{Framing, Link, Links};

/// After a failure the links are read anew after this long.
const AGAIN: Duration = Duration::from_secs(1);
/// A list that changed while it was read is read again at once, so many times.
const READINGS: u32 = 10;

/// Begins to watch the links of this namespace. The receiver holds the present state from the start and is told of every
/// change until it is dropped.
///
/// A burst, or notifications that the kernel had to drop (`ENOBUFS`), are met by reading everything anew; a connection that
/// ends is opened anew. Neither ends the watch.
pub async fn watch() -> Result<watch::Receiver<Links>> {
    let source = Source::open()?;
    let (sender, receiver) = watch::channel(source.read().await?);
    tokio::spawn(follow(source, sender));
    Ok(receiver)
}

/// Goes on until nobody listens any more.
async fn follow(mut source: Source, sender: watch::Sender<Links>) {
    loop {
        let news = tokio::select! {
            () = sender.closed() => return,
            news = source.changed() => news,
        };
        let before = sender.borrow().clone();
        let read = match news {
            Some(News { links: true, .. }) => source.read().await,
            Some(News { links: false, .. }) => Ok(before.clone()),
            None => Err(anyhow::anyhow!("the netlink connection has ended")),
        };
        let links = match read {
            Ok(links) => links,
            Err(error) => {
                tracing::warn!("links could not be read, the netlink connection is made anew: {error:#}");
                let Some((anew, links)) = reopen(&sender).await else { return };
                source = anew;
                links
            }
        };
        let filters_changed = news.is_none_or(|news| news.filters);
        let links = Links { filter_changes: before.filter_changes + u64::from(filters_changed), ..links };
        sender.send_if_modified(|present| {
            let changed = *present != links;
            *present = links;
            changed
        });
    }
}

/// Makes a new connection and reads the links over it, as often as it takes; `None` once nobody listens any more.
async fn reopen(sender: &watch::Sender<Links>) -> Option<(Source, Links)> {
    while !sender.is_closed() {
        let read = async {
            let source = Source::open()?;
            let links = source.read().await?;
            Ok::<_, anyhow::Error>((source, links))
        };
        match read.await {
            Ok(opened) => return Some(opened),
            Err(error) => tracing::warn!(again = ?AGAIN, "links cannot be read: {error:#}"),
        }
        tokio::time::sleep(AGAIN).await;
    }
    None
}

/// What has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct News {
    /// Links or routes.
    links: bool,
    /// Filters or queueing disciplines.
    filters: bool,
}

impl News {
    fn note(&mut self, message: &NetlinkMessage<RouteNetlinkMessage>) {
        let NetlinkPayload::InnerMessage(message) = &message.payload else {
            // Some were dropped: anything may have happened.
            *self = Self { links: true, filters: true };
            return;
        };
        match message {
            RouteNetlinkMessage::NewTrafficFilter(_)
            | RouteNetlinkMessage::DelTrafficFilter(_)
            | RouteNetlinkMessage::NewTrafficChain(_)
            | RouteNetlinkMessage::DelTrafficChain(_)
            | RouteNetlinkMessage::NewTrafficClass(_)
            | RouteNetlinkMessage::DelTrafficClass(_)
            | RouteNetlinkMessage::NewTrafficAction(_)
            | RouteNetlinkMessage::DelTrafficAction(_)
            | RouteNetlinkMessage::NewQueueDiscipline(_)
            | RouteNetlinkMessage::DelQueueDiscipline(_) => self.filters = true,
            _ => self.links = true,
        }
    }
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
        let (listener, _, notifications) =
            new_multicast_connection(&groups).context("opening a netlink socket for links, routes and filters")?;
        let (mut asker, handle, _) = new_connection().context("opening a netlink socket to ask for links")?;
        // Without its last message a list that was cut off would look complete.
        asker.set_forward_done(true);
        tokio::spawn(asker);
        Ok(Self { handle, notifications, listener: tokio::spawn(listener) })
    }

    /// Waits for the next notification, and takes those that came with it; `None` when there will be none any more.
    ///
    /// Dropped notifications are one as well: netlink-proto tells of them by a message of its own (`NLMSG_OVERRUN`), after it has
    /// emptied the socket.
    async fn changed(&mut self) -> Option<News> {
        let mut news = News::default();
        news.note(&self.notifications.next().await?.0);
        while let Some(Some((message, _))) = self.notifications.next().now_or_never() {
            news.note(&message);
        }
        Some(news)
    }

    async fn read(&self) -> Result<Links> {
        let mut links = Links::default();
        for message in self.list(RouteNetlinkMessage::GetLink(LinkMessage::default())).await.context("reading links")? {
            if let RouteNetlinkMessage::NewLink(message) = message
                && let Some((index, link)) = link(&message)
            {
                links.by_index.insert(index, link);
            }
        }
        let families = [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()];
        let mut routes = Vec::new();
        for family in families {
            for message in self.list(RouteNetlinkMessage::GetRoute(family)).await.context("reading routes")? {
                if let RouteNetlinkMessage::NewRoute(message) = message {
                    routes.extend(routes_out(&message));
                }
            }
        }
        links.routes = routes.into();
        Ok(links)
    }

    /// The whole list that a question asks for: complete, and of one moment, or an error.
    async fn list(&self, question: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..READINGS {
            if let Some(list) = self.list_once(question.clone()).await? {
                return Ok(list);
            }
        }
        bail!("the list changed each of the {READINGS} times it was read")
    }

    /// `None` when the list changed while the kernel wrote it (`NLM_F_DUMP_INTR`): something may be missing from it.
    async fn list_once(&self, question: RouteNetlinkMessage) -> Result<Option<Vec<RouteNetlinkMessage>>> {
        let mut message = NetlinkMessage::from(question);
        message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut answers = self.handle.clone().request(message)?;
        let mut list = Vec::new();
        let mut torn = false;
        while let Some(answer) = answers.next().await {
            torn |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => list.push(message),
                NetlinkPayload::Done(_) => return Ok((!torn).then_some(list)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_netlink_connection_that_ends_is_made_anew_and_the_links_are_read_again() {
        let source = Source::open().unwrap();
        source.listener.abort();
        let (sender, mut receiver) = watch::channel(Links::default());
        let following = tokio::spawn(follow(source, sender));
        receiver.changed().await.unwrap();
        assert!(receiver.borrow().named("lo").is_some());
        assert!(!following.is_finished());
        drop(receiver);
        following.await.unwrap();
    }

    #[tokio::test]
    async fn a_list_that_is_cut_off_is_not_taken_for_the_whole() {
        let source = Source::open().unwrap();
        assert!(source.read().await.unwrap().named("lo").is_some());
        let (connection, handle, _) = new_connection().unwrap();
        drop(connection);
        let mut cut = Source::open().unwrap();
        cut.handle = handle;
        assert!(cut.read().await.is_err());
    }
}
