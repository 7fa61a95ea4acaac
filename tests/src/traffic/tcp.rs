//! TCP: one server, and clients that upload to it or download from it.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Socket, Type};

use super::{Extras, Flow, Pace, Report, Shared, TICK, is_timeout};
use crate::Direction;
use crate::netns::Namespace;

/// Octets in one write.
const CHUNK: usize = 32 * 1024;

/// A TCP transfer between a client and a [`TcpServer`].
#[derive(Debug, Clone, Copy)]
pub struct Transfer {
    /// Uplink: the client sends. Downlink: the server sends.
    pub direction: Direction,
    /// Octets to carry; none means until it is stopped.
    pub octets: Option<u64>,
    /// Octets per second, none for as fast as it goes.
    pub rate: Option<u64>,
    /// The largest segment, in octets of payload and TCP options, for both directions (88 to 1460); none for what the MTU allows.
    pub segment: Option<u16>,
    /// Congestion control of the end that sends, by the kernel's name for it; none for the kernel's own choice.
    pub control: Option<&'static str>,
    /// What else is in the headers of the client's packets.
    pub extras: Extras,
    /// After this time it fails.
    pub limit: Duration,
}

impl Transfer {
    /// So many octets, at full speed, within a minute.
    #[must_use]
    pub const fn of(direction: Direction, octets: u64) -> Self {
        Self {
            direction,
            octets: Some(octets),
            rate: None,
            segment: None,
            control: None,
            extras: Extras::None,
            limit: Duration::from_mins(1),
        }
    }

    /// Until it is stopped, at so many octets per second, for at most ten minutes.
    #[must_use]
    pub const fn endless(direction: Direction, rate: u64) -> Self {
        Self {
            direction,
            octets: None,
            rate: Some(rate),
            segment: None,
            control: None,
            extras: Extras::None,
            limit: Duration::from_mins(10),
        }
    }

    /// The same as fast as it goes.
    #[must_use]
    pub const fn unpaced(self) -> Self {
        Self { rate: None, ..self }
    }

    /// The same with this largest segment.
    #[must_use]
    pub const fn with_segment(self, segment: u16) -> Self {
        Self { segment: Some(segment), ..self }
    }

    /// The same within this time.
    #[must_use]
    pub const fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }
}

/// Receives uploads and serves downloads until it is dropped.
#[derive(Debug)]
pub struct TcpServer {
    address: SocketAddr,
    flows: Arc<Flows>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Flows {
    stop: AtomicBool,
    next: AtomicU64,
    expected: Mutex<HashMap<u64, (Arc<Shared>, Transfer)>>,
}

impl TcpServer {
    /// Listens in `namespace` on `address`, at a port that the kernel chooses.
    pub fn start(namespace: &Namespace, address: IpAddr) -> Result<Self> {
        let socket = namespace.socket(Domain::for_address(SocketAddr::new(address, 0)), Type::STREAM)?;
        socket.bind(&SocketAddr::new(address, 0).into()).with_context(|| format!("bind {address}"))?;
        socket.listen(128)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?.as_socket().context("an IP address")?;
        let flows = Arc::new(Flows::default());
        let theirs = Arc::clone(&flows);
        let thread = std::thread::Builder::new().name("tcp server".into()).spawn(move || serve(&socket, &theirs))?;
        Ok(Self { address, flows, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins a transfer from a client in `namespace`.
    pub fn flow(&self, namespace: &Namespace, transfer: Transfer) -> Result<Flow> {
        let socket = namespace.socket(Domain::for_address(self.address), Type::STREAM)?;
        if let Some(segment) = transfer.segment {
            socket.set_tcp_mss(segment.into()).context("set the segment size")?;
        }
        transfer.extras.set(&socket)?;
        let shared = Shared::new(transfer.limit);
        let id = self.flows.next.fetch_add(1, Ordering::SeqCst);
        self.flows.expect(id, &shared, transfer);
        let (address, theirs) = (self.address, Arc::clone(&shared));
        Flow::start("tcp client", &shared, move || {
            let mut stream = connect(socket, address, &theirs)?;
            let ended = client(&mut stream, id, transfer, &theirs);
            abort_unless(ended.is_ok(), &stream);
            ended.with_context(|| format!("{transfer:?} with {address}"))
        })
    }

    /// Carries a transfer that has an end, to its end.
    pub fn transfer(&self, namespace: &Namespace, transfer: Transfer) -> Result<Report> {
        ensure!(transfer.octets.is_some(), "an endless transfer has no end to wait for");
        self.flow(namespace, transfer)?.join()
    }
}

impl Drop for TcpServer {
    fn drop(&mut self) {
        self.flows.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Flows {
    fn expect(&self, id: u64, shared: &Arc<Shared>, transfer: Transfer) {
        let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        expected.insert(id, (Arc::clone(shared), transfer));
    }

    fn take(&self, id: u64) -> Option<(Arc<Shared>, Transfer)> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }
}

/// Accepts until told to stop; each connection has a thread, and all have ended when this returns.
fn serve(listener: &Socket, flows: &Arc<Flows>) {
    let mut threads = Vec::new();
    while !flows.stop.load(Ordering::SeqCst) {
        let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut ready, PollTimeout::try_from(TICK).unwrap_or(PollTimeout::ZERO));
        while let Ok((socket, _)) = listener.accept() {
            let flows = Arc::clone(flows);
            threads.push(std::thread::spawn(move || answer(socket.into(), &flows)));
        }
    }
    for thread in threads {
        let _ = thread.join();
    }
}

/// The server's side of one connection. What goes wrong here the client sees as well, and reports.
fn answer(mut stream: TcpStream, flows: &Flows) {
    // The first octets of a connection say which flow it is.
    let mut id = [0; 8];
    if set_ticks(&stream).is_err() || stream.set_read_timeout(Some(Duration::from_secs(5))).is_err() {
        return;
    }
    if stream.read_exact(&mut id).is_err() || stream.set_read_timeout(Some(TICK)).is_err() {
        return;
    }
    let Some((shared, transfer)) = flows.take(u64::from_be_bytes(id)) else { return };
    shared.serving.store(true, Ordering::SeqCst);
    let ended = match transfer.direction {
        Direction::Uplink => receive(&mut stream, &shared, &flows.stop).and_then(|octets| {
            stream.write_all(&octets.to_be_bytes())?;
            Ok(())
        }),
        Direction::Downlink => send(&mut stream, transfer, &shared, &flows.stop),
    };
    abort_unless(ended.is_ok(), &stream);
    drop(stream);
    shared.serving.store(false, Ordering::SeqCst);
}

/// Connects, in steps short enough to be stopped while the gate is shut.
fn connect(socket: Socket, address: SocketAddr, shared: &Shared) -> Result<TcpStream> {
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error).with_context(|| format!("connect to {address}")),
    }
    loop {
        let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut ready, PollTimeout::try_from(TICK)?).unwrap_or(0) > 0 {
            break;
        }
        ensure!(!shared.stopped(), "stopped before {address} answered");
        shared.in_time().with_context(|| format!("connect to {address}"))?;
    }
    if let Some(error) = socket.take_error()? {
        return Err(error).with_context(|| format!("connect to {address}"));
    }
    socket.set_nonblocking(false)?;
    let stream = TcpStream::from(socket);
    set_ticks(&stream)?;
    Ok(stream)
}

fn client(stream: &mut TcpStream, id: u64, transfer: Transfer, shared: &Shared) -> Result<()> {
    stream.write_all(&id.to_be_bytes()).context("say which flow it is")?;
    let never = AtomicBool::new(false);
    match transfer.direction {
        Direction::Uplink => {
            send(stream, transfer, shared, &never)?;
            let mut octets = [0; 8];
            read_exactly(stream, &mut octets, shared)?;
            let (got, sent) = (u64::from_be_bytes(octets), shared.progress.sent.load(Ordering::SeqCst));
            ensure!(got == sent, "sent {sent} octets, the server received {got}");
        }
        Direction::Downlink => {
            let got = receive(stream, shared, &never)?;
            if let Some(octets) = transfer.octets {
                ensure!(got == octets, "asked for {octets} octets, received {got}");
            }
        }
    }
    Ok(())
}

/// Sends what the transfer asks for, then the end of the stream; fails when it is stopped before.
fn send(stream: &mut TcpStream, transfer: Transfer, shared: &Shared, stop: &AtomicBool) -> Result<()> {
    let chunk = vec![0x5a; CHUNK];
    if let Some(control) = transfer.control {
        socket2::SockRef::from(&*stream)
            .set_tcp_congestion(control.as_bytes())
            .with_context(|| format!("use {control}"))?;
    }
    let pace = Pace::new(transfer.rate)?;
    let mut left = transfer.octets.unwrap_or(u64::MAX);
    let mut sent = 0;
    while left > 0 {
        check(shared, stop)?;
        if !pace.due(sent) {
            continue;
        }
        let size = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK).min(burst(transfer.rate));
        match stream.write(&chunk[..size]) {
            Ok(written) => {
                left -= written as u64;
                sent += written as u64;
                shared.progress.sent.store(sent, Ordering::SeqCst);
            }
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error).context("send"),
        }
    }
    stream.shutdown(Shutdown::Write).context("end the stream")
}

/// A twentieth of a second's worth, so that a slow pace is a stream and no train of bursts.
fn burst(rate: Option<u64>) -> usize {
    rate.map_or(CHUNK, |rate| usize::try_from(rate / 20).unwrap_or(CHUNK).max(1))
}

/// Takes octets until the other end has ended its stream.
fn receive(stream: &mut TcpStream, shared: &Shared, stop: &AtomicBool) -> Result<u64> {
    let mut chunk = vec![0; CHUNK];
    let mut delivered = 0;
    loop {
        check(shared, stop)?;
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(delivered),
            Ok(read) => {
                delivered += read as u64;
                shared.progress.delivered.store(delivered, Ordering::SeqCst);
            }
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error).context("receive"),
        }
    }
}

fn read_exactly(stream: &mut TcpStream, mut to: &mut [u8], shared: &Shared) -> Result<()> {
    while !to.is_empty() {
        check(shared, &AtomicBool::new(false))?;
        match stream.read(to) {
            Ok(0) => bail!("the server went away"),
            Ok(read) => to = &mut to[read..],
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error).context("receive"),
        }
    }
    Ok(())
}

fn check(shared: &Shared, stop: &AtomicBool) -> Result<()> {
    ensure!(!shared.stopped() && !stop.load(Ordering::SeqCst), "stopped");
    shared.in_time()
}

fn set_ticks(stream: &TcpStream) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(TICK))?;
    stream.set_write_timeout(Some(TICK)).context("set the time-outs")
}

/// A stream that was broken off is reset, so that its kernel does not go on sending what nobody wants.
fn abort_unless(orderly: bool, stream: &TcpStream) {
    if !orderly {
        let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }
}
