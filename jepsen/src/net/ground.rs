//! The wire between namespaces: a bridge in a namespace of its own, and one cable from it to the harness.

use super::place::Place;
use anyhow::{Context, bail};
use std::fmt::Write;
use std::net::Ipv4Addr;

/// How many runs can have a bridge at once.
const RUNS_MAX: u8 = 255;
/// The harness's end of its cable has this name and the number of the run. The kernel has a name once, so the name is
/// also the claim to the addresses that go with the number.
const CABLE: &str = "onward-j";
/// The last byte of the harness's own address.
const HARNESS: u8 = 254;

/// The bridge, and the addresses on it: those of 198.18.0.0/15, which are set aside for tests of networks (RFC 2544).
pub(super) struct Ground {
    place: Place,
    run: u8,
}

impl Ground {
    /// Makes a bridge that the harness is on.
    pub(super) async fn lay(harness: &Place) -> anyhow::Result<Ground> {
        let place = Place::apart("jepsen-bridge")?;
        let bridge = "link set lo up\nlink add bridge type bridge\nlink set bridge up\n";
        batch(&place, bridge).await?;
        let run = claim(harness, &place).await?;
        batch(&place, "link set uplink master bridge\nlink set uplink up\n").await?;
        let ground = Ground { place, run };
        let (cable, address) = (cable(run), ground.address(u64::from(HARNESS)));
        let own = format!("address add {address}/24 dev {cable}\nlink set {cable} up\n");
        batch(harness, &own).await?;
        Ok(ground)
    }

    /// The address of a node.
    pub(super) fn address(&self, node: u64) -> Ipv4Addr {
        let host = u8::try_from(node).expect("a handful of nodes");
        Ipv4Addr::new(198, 18, self.run, host)
    }

    /// Connects the place of `node`.
    pub(super) async fn connect(&self, node: u64, place: &Place) -> anyhow::Result<()> {
        let mut script = String::new();
        let path = place.path();
        writeln!(
            script,
            "link add node{node} type veth peer name eth0 netns {}",
            path.display()
        )?;
        writeln!(script, "link set node{node} master bridge")?;
        writeln!(script, "link set node{node} up")?;
        batch(&self.place, &script).await?;
        let address = self.address(node);
        let script = format!("link set lo up\naddress add {address}/24 dev eth0\nlink set eth0 up\n");
        batch(place, &script).await
    }

    /// The name of the harness's end of the cable.
    #[cfg(test)]
    pub(super) fn cable(&self) -> String {
        cable(self.run)
    }
}

fn cable(run: u8) -> String {
    format!("{CABLE}{run}")
}

/// Lays a cable from the harness into `bridge`, under the first number that no other run has.
async fn claim(harness: &Place, bridge: &Place) -> anyhow::Result<u8> {
    // Runs that start together begin at different numbers, so that they do not try the same ones.
    let first = u8::try_from(std::process::id() % u32::from(RUNS_MAX)).expect("less than RUNS_MAX");
    let path = bridge.path();
    for tried in 0..RUNS_MAX {
        let run = ((u16::from(first) + u16::from(tried)) % u16::from(RUNS_MAX)) as u8;
        let cable = cable(run);
        let link = format!(
            "link add {cable} type veth peer name uplink netns {}\n",
            path.display()
        );
        match batch(harness, &link).await {
            Ok(()) => return Ok(run),
            Err(error) if format!("{error:#}").contains("File exists") => {}
            Err(error) => return Err(error),
        }
    }
    bail!("{RUNS_MAX} runs have a network already: see `ip link` for {CABLE}...")
}

async fn batch(place: &Place, script: &str) -> anyhow::Result<()> {
    place
        .command("ip", &["-batch", "-"], script)
        .await
        .map(drop)
        .context("the network of the cluster could not be laid")
}
