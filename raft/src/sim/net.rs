//! The network between simulated machines: streams with a latency, links that block in one direction or both, and
//! connections that break.
//!
//! A stream is what TCP gives: bytes arrive in order or not at all. What is under way on a link that blocks arrives once
//! the link is free again; a dial waits for it.

use super::process::Process;
use super::world::World;
use crate::peer::net::{Listen, Net, ReadHalf, WriteHalf};
use bytes::{Buf, Bytes};
use onward_statemachine::ports::BoxFuture;
use rand::RngExt;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Mutex as Turn, mpsc};
use tokio::time::{Instant, Sleep};

const PORT: u16 = 7401;
/// What a stream takes in before its reader must read.
const BUFFER_BYTES_MAX: usize = 256 << 10;
/// Between two tries of a dial to get through.
const DIAL_PAUSE: Duration = Duration::from_millis(200);

/// How what one machine sends to another fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Whether nothing gets through.
    pub blocked: bool,
    /// The shortest time that a write takes to arrive, in µs.
    pub latency_us_min: u64,
    /// The longest.
    pub latency_us_max: u64,
    /// Of a million writes, how many break their connection.
    pub breaks_ppm: u32,
}

impl Default for Link {
    fn default() -> Self {
        Link {
            blocked: false,
            latency_us_min: 50,
            latency_us_max: 500,
            breaks_ppm: 0,
        }
    }
}

/// Where the node of a machine listens for peers.
pub(crate) fn address_of(machine: u64) -> String {
    socket_address(machine).to_string()
}

fn socket_address(machine: u64) -> SocketAddr {
    let [.., high, low] = machine.to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(10, 0, high, low), PORT))
}

fn machine_at(address: &str) -> io::Result<u64> {
    let unknown = || io::Error::other(format!("{address} is no address here"));
    match address.parse() {
        Ok(SocketAddr::V4(found)) if found.port() == PORT => {
            let [_, _, high, low] = found.ip().octets();
            Ok(u64::from(u16::from_be_bytes([high, low])))
        }
        _ => Err(unknown()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Connection = (ReadHalf, WriteHalf, SocketAddr);

#[derive(Default)]
struct State {
    links: BTreeMap<(u64, u64), Link>,
    /// Who listens; a machine without power does not even refuse.
    listeners: BTreeMap<u64, mpsc::UnboundedSender<Connection>>,
    powerless: Vec<u64>,
    pipes: Vec<Weak<Pipe>>,
}

/// The network of a world.
#[derive(Default)]
pub(crate) struct Network(Mutex<State>);

impl Network {
    pub(crate) fn set_link(&self, from: u64, to: u64, link: Link) {
        let mut state = lock(&self.0);
        state.links.insert((from, to), link);
        for pipe in state.pipes_between(from, to) {
            pipe.wake();
        }
    }

    pub(crate) fn break_connections(&self, one: u64, other: u64) {
        let mut state = lock(&self.0);
        for (from, to) in [(one, other), (other, one)] {
            for pipe in state.pipes_between(from, to) {
                pipe.reset();
            }
        }
    }

    /// A machine loses its power: its streams fall silent.
    pub(crate) fn cut_off(&self, machine: u64) {
        let mut state = lock(&self.0);
        state.powerless.push(machine);
        for pipe in state.pipes_of(machine) {
            lock(&pipe.state).cut = true;
        }
    }

    /// A machine starts anew: it knows nothing of the streams that it had.
    pub(crate) fn revive(&self, machine: u64) {
        let mut state = lock(&self.0);
        state.powerless.retain(|known| *known != machine);
        for pipe in state.pipes_of(machine) {
            if lock(&pipe.state).cut {
                pipe.reset();
            }
        }
    }

    fn link(&self, from: u64, to: u64) -> Link {
        lock(&self.0).links.get(&(from, to)).copied().unwrap_or_default()
    }
}

impl State {
    fn pipes_between(&mut self, from: u64, to: u64) -> Vec<Arc<Pipe>> {
        self.pipes(|pipe| pipe.from == from && pipe.to == to)
    }

    fn pipes_of(&mut self, machine: u64) -> Vec<Arc<Pipe>> {
        self.pipes(|pipe| pipe.from == machine || pipe.to == machine)
    }

    fn pipes(&mut self, wanted: impl Fn(&Pipe) -> bool) -> Vec<Arc<Pipe>> {
        self.pipes.retain(|pipe| pipe.strong_count() > 0);
        let open = self.pipes.iter().filter_map(Weak::upgrade);
        open.filter(|pipe| wanted(pipe)).collect()
    }
}

/// One direction of a stream.
struct Pipe {
    world: World,
    from: u64,
    to: u64,
    state: Mutex<Flow>,
}

#[derive(Default)]
struct Flow {
    chunks: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    /// When the last of it arrives.
    due: Option<Instant>,
    /// When the reader learns that nothing more comes.
    end: Option<Instant>,
    reset: bool,
    cut: bool,
    reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Flow {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

impl Pipe {
    fn new(world: &World, from: u64, to: u64) -> Arc<Self> {
        let pipe = Arc::new(Pipe {
            world: world.clone(),
            from,
            to,
            state: Mutex::default(),
        });
        let mut network = lock(&world.network().0);
        if network.pipes.len() > 256 {
            network.pipes.retain(|pipe| pipe.strong_count() > 0);
        }
        network.pipes.push(Arc::downgrade(&pipe));
        pipe
    }

    fn wake(&self) {
        lock(&self.state).wake();
    }

    fn reset(&self) {
        let mut flow = lock(&self.state);
        flow.reset = true;
        flow.wake();
    }

    fn link(&self) -> Link {
        self.world.network().link(self.from, self.to)
    }

    fn latency(&self, link: &Link) -> Duration {
        let longest = link.latency_us_max.max(link.latency_us_min);
        let latency = self
            .world
            .random(|rng| rng.random_range(link.latency_us_min..=longest));
        Duration::from_micros(latency)
    }
}

/// The end of a pipe that is read.
struct Reading {
    pipe: Arc<Pipe>,
    timer: Pin<Box<Sleep>>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut flow = lock(&self.pipe.state);
        flow.reader_gone = true;
        flow.wake();
    }
}

impl AsyncRead for Reading {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let blocked = this.pipe.link().blocked;
        let mut flow = lock(&this.pipe.state);
        if flow.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        flow.reader = Some(context.waker().clone());
        let next = flow.chunks.front().map(|(due, _)| *due).or(flow.end);
        let Some(due) = next.filter(|_| !blocked && !flow.cut) else {
            return Poll::Pending;
        };
        if due > Instant::now() {
            this.timer.as_mut().reset(due);
            if this.timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        let Some((_, chunk)) = flow.chunks.front_mut() else {
            return Poll::Ready(Ok(()));
        };
        let count = chunk.len().min(buffer.remaining());
        buffer.put_slice(&chunk[..count]);
        chunk.advance(count);
        if chunk.is_empty() {
            flow.chunks.pop_front();
        }
        flow.bytes -= count;
        if let Some(writer) = flow.writer.take() {
            writer.wake();
        }
        Poll::Ready(Ok(()))
    }
}

/// The end of a pipe that is written.
struct Writing {
    pipe: Arc<Pipe>,
    /// The other direction, which breaks with this one.
    back: Arc<Pipe>,
}

impl Drop for Writing {
    fn drop(&mut self) {
        let link = self.pipe.link();
        let latency = self.pipe.latency(&link);
        let mut flow = lock(&self.pipe.state);
        let due = (Instant::now() + latency).max(flow.due.unwrap_or_else(Instant::now));
        flow.end = Some(due);
        if let Some(reader) = flow.reader.take() {
            reader.wake();
        }
    }
}

impl AsyncWrite for Writing {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let pipe = &self.pipe;
        let link = pipe.link();
        let breaks = link.breaks_ppm > 0
            && pipe
                .world
                .random(|rng| rng.random_range(0..1_000_000) < link.breaks_ppm);
        if breaks {
            pipe.world
                .note(|| format!("n{} -> n{} a connection breaks", pipe.from, pipe.to));
            pipe.reset();
            self.back.reset();
        }
        let latency = pipe.latency(&link);
        let mut flow = lock(&pipe.state);
        if flow.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if flow.reader_gone && !flow.cut && !link.blocked {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if flow.bytes >= BUFFER_BYTES_MAX {
            flow.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let due = (Instant::now() + latency).max(flow.due.unwrap_or_else(Instant::now));
        flow.due = Some(due);
        flow.bytes += bytes.len();
        flow.chunks.push_back((due, Bytes::copy_from_slice(bytes)));
        if let Some(reader) = flow.reader.take() {
            reader.wake();
        }
        pipe.world.note(|| {
            let checksum = crc32fast::hash(bytes);
            format!(
                "n{} -> n{} {} bytes {checksum:08x}",
                pipe.from,
                pipe.to,
                bytes.len()
            )
        });
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The two ends of a stream between two machines.
fn stream(world: &World, near: u64, far: u64) -> ((ReadHalf, WriteHalf), (ReadHalf, WriteHalf)) {
    let (there, back) = (Pipe::new(world, near, far), Pipe::new(world, far, near));
    let reading = |pipe: &Arc<Pipe>| -> ReadHalf {
        Box::new(Reading {
            pipe: pipe.clone(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        })
    };
    let writing = |pipe: &Arc<Pipe>, back: &Arc<Pipe>| -> WriteHalf {
        Box::new(Writing {
            pipe: pipe.clone(),
            back: back.clone(),
        })
    };
    (
        (reading(&back), writing(&there, &back)),
        (reading(&there), writing(&back, &there)),
    )
}

/// The network as a process sees it.
pub(crate) struct MachineNet(Arc<Process>);

impl MachineNet {
    pub(crate) fn new(process: Arc<Process>) -> Self {
        MachineNet(process)
    }

    async fn connect(&self, address: &str) -> io::Result<(ReadHalf, WriteHalf)> {
        let machine = &self.0.machine;
        let (world, me) = (&machine.world, machine.id);
        let other = machine_at(address)?;
        loop {
            let (there, back) = (world.network().link(me, other), world.network().link(other, me));
            let powerless = lock(&world.network().0).powerless.contains(&other);
            if !there.blocked && !back.blocked && !powerless {
                let latency = there.latency_us_max + back.latency_us_max;
                tokio::time::sleep(Duration::from_micros(latency)).await;
                break;
            }
            tokio::time::sleep(DIAL_PAUSE).await;
        }
        let listener = lock(&world.network().0).listeners.get(&other).cloned();
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let listener = listener.ok_or_else(refused)?;
        let (near, (read, write)) = stream(world, me, other);
        listener
            .send((read, write, socket_address(me)))
            .map_err(|_| refused())?;
        Ok(near)
    }
}

impl Net for MachineNet {
    fn dial<'a>(
        &'a self,
        address: &'a str,
        _patience: Duration,
    ) -> BoxFuture<'a, io::Result<(ReadHalf, WriteHalf)>> {
        Box::pin(self.connect(address))
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listen>>> {
        Box::pin(async move {
            let machine = &self.0.machine;
            if machine_at(address)? != machine.id {
                return Err(io::ErrorKind::AddrNotAvailable.into());
            }
            let (sender, connections) = mpsc::unbounded_channel();
            let network = machine.world.network();
            lock(&network.0).listeners.insert(machine.id, sender.clone());
            Ok(Box::new(Listener {
                world: machine.world.clone(),
                machine: machine.id,
                sender,
                connections: Turn::new(connections),
            }) as Box<dyn Listen>)
        })
    }
}

struct Listener {
    world: World,
    machine: u64,
    sender: mpsc::UnboundedSender<Connection>,
    connections: Turn<mpsc::UnboundedReceiver<Connection>>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut network = lock(&self.world.network().0);
        let mine = network.listeners.get(&self.machine);
        if mine.is_some_and(|listener| listener.same_channel(&self.sender)) {
            network.listeners.remove(&self.machine);
        }
    }
}

impl Listen for Listener {
    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let next = self.connections.lock().await.recv().await;
            next.ok_or_else(|| io::ErrorKind::NotConnected.into())
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(socket_address(self.machine))
    }
}
