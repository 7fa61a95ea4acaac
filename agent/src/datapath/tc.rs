//! Asks the kernel about filters and queueing disciplines, and has it change them: netlink, one question and its answers at a time.
//!
//! Only what is wanted of an answer is read: it may tell of filters that no library knows.

use std::io;

use anyhow::{Context as _, Result, bail};
use rtnetlink::{
    packet_core::{
        NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN, NetlinkBuffer,
        NetlinkMessage, NlasIterator,
    },
    packet_route::RouteNetlinkMessage,
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

/// Length of `struct tcmsg`.
const HEADER: usize = 20;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_CHAIN: u16 = 11;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_ID: u16 = 11;
/// `NLMSGERR_ATTR_MSG`: what the kernel has to say about an error, in words.
const ERROR_WORDS: u16 = 1;

/// What an answer says of a filter or a queueing discipline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) ifindex: u32,
    pub(super) handle: u32,
    pub(super) parent: u32,
    /// `tcm_info`: of a filter, its priority above its protocol (in network order).
    pub(super) info: u32,
    /// What it is: `clsact`, `bpf`, `matchall` …
    pub(super) kind: String,
    /// The chain that a filter belongs to; the hook runs chain 0.
    pub(super) chain: u32,
    /// The name that whoever attached a BPF filter gave it.
    pub(super) name: String,
    /// Its program; 0 for what has none.
    pub(super) program_id: u32,
}

/// The error of the kernel, and its own words about it.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) error: io::Error,
    words: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.error)?;
        if self.words.is_empty() { Ok(()) } else { write!(f, " ({})", self.words) }
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// Tells whether an error is the kernel's refusal with this number.
    pub(super) fn is(error: &anyhow::Error, number: i32) -> bool {
        error.downcast_ref::<Self>().is_some_and(|refusal| refusal.error.raw_os_error() == Some(number))
    }
}

/// Has the kernel do something; a [`Refusal`] when it will not.
pub(super) fn order(message: RouteNetlinkMessage, flags: u16) -> Result<()> {
    converse(message, NLM_F_REQUEST | NLM_F_ACK | flags).map(drop)
}

/// The whole list that a question asks for.
pub(super) fn list(question: RouteNetlinkMessage) -> Result<Vec<Told>> {
    converse(question, NLM_F_REQUEST | NLM_F_DUMP)
}

fn converse(message: RouteNetlinkMessage, flags: u16) -> Result<Vec<Told>> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = flags;
    message.finalize();
    let mut octets = vec![0; message.buffer_len()];
    message.serialize(&mut octets);

    let mut socket = Socket::new(NETLINK_ROUTE).context("opening a netlink socket")?;
    socket.bind_auto().context("binding a netlink socket")?;
    // The kernel's own words; it does without where it has none.
    let _ = socket.set_ext_ack(true);
    let _ = socket.set_cap_ack(true);
    socket.send_to(&octets, &SocketAddr::new(0, 0), 0).context("sending to the kernel by netlink")?;
    let mut told = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full().context("receiving from the kernel by netlink")?;
        if datagram.is_empty() {
            bail!("the kernel's answer by netlink was cut off");
        }
        if hear(&datagram, &mut told)? == Answer::Whole {
            return Ok(told);
        }
    }
}

/// How far an answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// There is more to come.
    Begun,
    /// That was its end.
    Whole,
}

/// Adds what one datagram of an answer tells.
pub(super) fn hear(datagram: &[u8], told: &mut Vec<Told>) -> Result<Answer> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let answer = NetlinkBuffer::new_checked(rest).map_err(|error| anyhow::anyhow!("netlink: {error}"))?;
        let length = usize::try_from(answer.length())?;
        match answer.message_type() {
            NLMSG_DONE | NLMSG_ERROR => return acknowledged(answer.payload()).map(|()| Answer::Whole),
            NLMSG_NOOP | NLMSG_OVERRUN => {}
            _ => told.extend(read(answer.payload())),
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(Answer::Begun)
}

/// An error of zero is an acknowledgement.
fn acknowledged(payload: &[u8]) -> Result<()> {
    let number = payload.first_chunk().map(|octets| i32::from_ne_bytes(*octets)).context("a short answer")?;
    if number == 0 {
        return Ok(());
    }
    // Behind the number stands the header of what was asked, then attributes.
    let words = payload.get(20..).and_then(|rest| attribute(rest, ERROR_WORDS).map(text)).unwrap_or_default();
    Err(Refusal { error: io::Error::from_raw_os_error(number.saturating_neg()), words }.into())
}

/// What a message tells; `None` if it is too short to tell anything.
fn read(payload: &[u8]) -> Option<Told> {
    let word = |at: usize| Some(u32::from_ne_bytes(*payload.get(at..)?.first_chunk()?));
    let attributes = payload.get(HEADER..)?;
    let number = |octets: &[u8]| octets.first_chunk().map(|octets| u32::from_ne_bytes(*octets));
    let kind = attribute(attributes, TCA_KIND).map(text).unwrap_or_default();
    let options = attribute(attributes, TCA_OPTIONS).filter(|_| kind == "bpf").unwrap_or_default();
    Some(Told {
        ifindex: word(4)?,
        handle: word(8)?,
        parent: word(12)?,
        info: word(16)?,
        chain: attribute(attributes, TCA_CHAIN).and_then(number).unwrap_or_default(),
        name: attribute(options, TCA_BPF_NAME).map(text).unwrap_or_default(),
        program_id: attribute(options, TCA_BPF_ID).and_then(number).unwrap_or_default(),
        kind,
    })
}

fn attribute(octets: &[u8], kind: u16) -> Option<&[u8]> {
    let found = NlasIterator::new(octets).map_while(Result::ok).find(|attribute| attribute.kind() == kind)?;
    let end = usize::from(found.length());
    found.into_inner().get(4..end)
}

fn text(octets: &[u8]) -> String {
    let octets = octets.split(|octet| *octet == 0).next().unwrap_or_default();
    String::from_utf8_lossy(octets).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_of_an_error_breaks_the_reading_of_it() {
        for number in [i32::MIN, -2, 2, i32::MAX] {
            acknowledged(&number.to_ne_bytes()).unwrap_err();
        }
        acknowledged(&[0; 4]).unwrap();
    }
}
