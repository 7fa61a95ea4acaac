//! One look at one interface, for whoever does not follow it: its own counters, and the programs that run before every hook.

use anyhow::{Context, Result};
use futures::TryStreamExt as _;
use rtnetlink::new_connection;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage, LinkXdp};

/// What an interface says of itself at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// Octets sent, as the driver counts them (`IFLA_STATS64`): link-layer headers included.
    pub sent_octets: u64,
    /// Octets received, as the driver counts them.
    pub received_octets: u64,
    /// The numbers of the XDP programs on it, by whichever mode.
    pub xdp: Vec<u32>,
}

impl Glance {
    /// Asks the kernel about an interface of this namespace.
    pub async fn at(interface: &str) -> Result<Self> {
        let (connection, handle, _) = new_connection().context("opening a netlink socket to ask for a link")?;
        tokio::spawn(connection);
        let mut answers = handle.link().get().match_name(interface.to_owned()).execute();
        let asking = || format!("asking about the link {interface}");
        let message = answers.try_next().await.with_context(asking)?.with_context(asking)?;
        Ok(Self::of(&message))
    }

    fn of(message: &LinkMessage) -> Self {
        let mut glance = Self::default();
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Stats64(stats) => {
                    (glance.sent_octets, glance.received_octets) = (stats.tx_bytes, stats.rx_bytes);
                }
                LinkAttribute::Xdp(programs) => {
                    // One attached in a single mode is told twice: as the program, and as that of its mode.
                    let numbers = programs.iter().filter_map(|told| match told {
                        LinkXdp::ProgId(number)
                        | LinkXdp::DrvProgId(number)
                        | LinkXdp::SkbProgId(number)
                        | LinkXdp::HwProgId(number) => Some(*number),
                        _ => None,
                    });
                    glance.xdp = numbers.filter(|number| *number != 0).collect();
                    glance.xdp.sort_unstable();
                    glance.xdp.dedup();
                }
                _ => {}
            }
        }
        glance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_told_twice_is_one() {
        let mut message = LinkMessage::default();
        assert_eq!(Glance::of(&message), Glance::default());
        message.attributes = vec![LinkAttribute::Xdp(vec![
            LinkXdp::ProgId(7),
            LinkXdp::SkbProgId(7),
            LinkXdp::DrvProgId(9),
            LinkXdp::HwProgId(0),
        ])];
        assert_eq!(Glance::of(&message).xdp, [7, 9]);
    }

    #[tokio::test]
    async fn the_loopback_is_looked_at_and_what_is_not_there_is_an_error() {
        let before = Glance::at("lo").await.unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(&[0; 1000], socket.local_addr().unwrap()).unwrap();
        let after = Glance::at("lo").await.unwrap();
        assert!(after.sent_octets >= before.sent_octets + 1000, "{before:?} {after:?}");
        assert!(after.received_octets >= before.received_octets + 1000, "{before:?} {after:?}");
        assert!(Glance::at("no-such-link").await.is_err());
    }
}
