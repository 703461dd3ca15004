//! What the network does to bytes, with real sockets in real namespaces.

use super::*;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How long anything may take that has to happen. It bounds a hang and measures nothing.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long is waited for what must not happen.
const SILENCE: Duration = Duration::from_millis(500);

async fn network(isolation: Isolation, proxied: bool) -> Option<Network> {
    let (best, obstacle) = Isolation::best();
    if isolation != best && isolation == Isolation::Namespaces {
        eprintln!("skipped: {}", obstacle.unwrap_or_default());
        return None;
    }
    Some(Network::lay(isolation, 3, proxied).await.expect("a network"))
}

/// Answers every byte with itself, where `node` listens for peers.
async fn echo(network: &Network, node: u64) {
    let address = network.addresses(node).peer;
    let listener = network.place(node).runtime().spawn(TcpListener::bind(address));
    let listener = listener.await.expect("the place lives").expect("binds");
    network.place(node).runtime().spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
}

/// Connects from where node `from` is to the front of `to`.
async fn connect(network: &Network, from: u64, to: u64) -> std::io::Result<TcpStream> {
    let front = network.addresses(to).front;
    let connected = network.place(from).runtime().spawn(TcpStream::connect(front));
    connected.await.expect("the place lives")
}

/// Sends a byte and waits for it; how long that took, or that it did not come back.
async fn ping(stream: &mut TcpStream, patience: Duration) -> Result<Duration, String> {
    let began = Instant::now();
    let there_and_back = async {
        stream.write_all(b"x").await?;
        stream.read_exact(&mut [0]).await
    };
    match tokio::time::timeout(patience, there_and_back).await {
        Ok(Ok(_)) => Ok(began.elapsed()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("silence".to_owned()),
    }
}

#[tokio::test]
async fn a_cut_is_one_way_and_ends() {
    let Some(network) = network(Isolation::Namespaces, false).await else {
        return;
    };
    echo(&network, 2).await;
    let mut stream = connect(&network, 1, 2).await.expect("connects");
    ping(&mut stream, PATIENCE).await.expect("a whole network");
    for _ in 0..2 {
        network.cut(1, 2).await.expect("cuts");
    }
    network.mend(1, 2).await.expect("mends one of two");
    assert_eq!(ping(&mut stream, SILENCE).await, Err("silence".to_owned()));
    let dropped = network.touched(1, 2).await.expect("counts");
    assert!(dropped > 0, "the rule dropped nothing");
    assert_eq!(network.touched(2, 1).await.expect("counts"), 0);
    network.mend(1, 2).await.expect("mends");
    // What was sent meanwhile arrives with the next try of the kernel.
    let mut late = [0];
    let arrived = tokio::time::timeout(PATIENCE, stream.read_exact(&mut late)).await;
    arrived.expect("in time").expect("the connection survived");
    assert!(network.touched(1, 2).await.expect("counts") >= dropped);
}

#[tokio::test]
async fn a_lossy_link_loses_some() {
    let Some(network) = network(Isolation::Namespaces, false).await else {
        return;
    };
    echo(&network, 2).await;
    network.lose(1, 2, 50).await.expect("loses");
    let mut stream = connect(&network, 1, 2).await.expect("the kernel tries again");
    let began = Instant::now();
    while network.touched(1, 2).await.expect("counts") == 0 {
        ping(&mut stream, PATIENCE).await.expect("the kernel tries again");
        assert!(began.elapsed() < PATIENCE, "nothing was lost");
    }
    // A cut on top of it is taken back alone.
    network.cut(1, 2).await.expect("cuts");
    network.mend(1, 2).await.expect("mends");
    let lost = network.touched(1, 2).await.expect("counts");
    while network.touched(1, 2).await.expect("counts") == lost {
        ping(&mut stream, PATIENCE).await.expect("the kernel tries again");
        assert!(began.elapsed() < PATIENCE, "the loss was taken back with the cut");
    }
    network.heal().await.expect("heals");
}

/// A stream of its own for each fault, through the proxies, which know who sends.
async fn shapes(network: &Network) {
    echo(network, 2).await;
    let mut stream = connect(network, 1, 2).await.expect("connects");
    ping(&mut stream, PATIENCE).await.expect("an open link");

    let delay = Duration::from_millis(120);
    let slow = Shape {
        delay,
        jitter: Duration::from_millis(10),
        ..Shape::default()
    };
    network.shape(1, 2, slow).expect("proxied");
    network.shape(2, 1, slow).expect("proxied");
    let took = ping(&mut stream, PATIENCE).await.expect("late");
    assert!(took >= 2 * delay, "both ways took only {took:?}");
    network.shape(2, 1, Shape::default()).expect("proxied");

    let drip = Shape {
        bytes_per_second: Some(100),
        ..Shape::default()
    };
    network.shape(1, 2, drip).expect("proxied");
    let began = Instant::now();
    stream.write_all(&[0; 50]).await.expect("sends");
    let dripped = tokio::time::timeout(PATIENCE, stream.read_exact(&mut [0; 50])).await;
    dripped.expect("in time").expect("whole");
    assert!(
        began.elapsed() >= Duration::from_millis(400),
        "{:?}",
        began.elapsed()
    );

    let held = Shape {
        passage: Passage::Held,
        ..Shape::default()
    };
    network.shape(2, 1, held).expect("proxied");
    assert_eq!(ping(&mut stream, SILENCE).await, Err("silence".to_owned()));
    network.heal().await.expect("heals");
    let answer = tokio::time::timeout(PATIENCE, stream.read_exact(&mut [0])).await;
    answer.expect("in time").expect("what was held arrives");

    let reset = Shape {
        passage: Passage::Reset,
        ..Shape::default()
    };
    network.shape(1, 2, reset).expect("proxied");
    let error = ping(&mut stream, PATIENCE).await.expect_err("it broke off");
    assert!(error != "silence", "{error}");
    // A new one breaks off at once: before it is known to be there, or after.
    let error = match connect(network, 1, 2).await {
        Ok(mut again) => ping(&mut again, PATIENCE).await.expect_err("it breaks off"),
        Err(error) => error.to_string(),
    };
    assert!(error != "silence", "{error}");
    assert!(network.touched(1, 2).await.expect("counts") > 0);
    network.heal().await.expect("heals");
    let mut stream = connect(network, 1, 2).await.expect("connects");
    ping(&mut stream, PATIENCE).await.expect("an open link");
}

#[tokio::test]
async fn proxies_delay_drip_hold_and_reset() {
    if let Some(network) = network(Isolation::Namespaces, true).await {
        shapes(&network).await;
    }
}

#[tokio::test]
async fn on_loopback_links_are_told_apart_by_process() {
    let network = network(Isolation::Loopback, false).await.expect("needs nothing");
    network.set_process(1, Some(std::process::id()));
    shapes(&network).await;
    let mut stream = connect(&network, 1, 2).await.expect("connects");
    ping(&mut stream, PATIENCE).await.expect("an open link");
    network.cut(2, 1).await.expect("cuts");
    // What shapes the stream leaves the cut alone.
    network.shape(2, 1, Shape::default()).expect("proxied");
    assert_eq!(ping(&mut stream, SILENCE).await, Err("silence".to_owned()));
    network.mend(2, 1).await.expect("mends");
    let answer = tokio::time::timeout(PATIENCE, stream.read_exact(&mut [0])).await;
    answer.expect("in time").expect("what was held arrives");
    assert!(
        network.lose(1, 2, 50).await.is_err(),
        "no packet can be lost here"
    );
}

#[tokio::test]
async fn nothing_of_it_is_left_behind() {
    let Some(network) = network(Isolation::Namespaces, false).await else {
        return;
    };
    let cable = network.ground.as_ref().expect("a bridge").cable();
    let there = || std::path::Path::new("/sys/class/net").join(&cable).exists();
    assert!(there());
    drop(network);
    let began = Instant::now();
    while there() {
        assert!(began.elapsed() < PATIENCE, "{cable} is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
