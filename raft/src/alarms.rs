//! What an operator has to see to, in words.

use crate::engine::Engine;
use crate::report::FRESH;
use onward_statemachine::ports::{ClusterStatus, Member, Role};
use std::sync::atomic::Ordering::Relaxed;

/// A member that has not answered the leader for so long is an alarm.
const SILENT_MS: u64 = 5_000;

/// All of it, the worst first.
pub(crate) fn of(engine: &Engine, status: &ClusterStatus) -> Vec<String> {
    let mut alarms = Vec::new();
    if !status.healthy {
        alarms.push("no majority of the members is in touch: nothing can be written".to_owned());
    }
    if engine.counters.hash_disputed.load(Relaxed) > 0 {
        alarms.push("members hold different states, and no majority tells who is right".to_owned());
    }
    if engine.room.shortage().is_some() {
        alarms.push("writes are refused, for lack of room on the disks; deletes are taken".to_owned());
    }
    alarms.extend(status.members.iter().flat_map(of_member));
    // Whoever has not reported to a leader that has only begun to lead may do so yet.
    let heard_out = engine.expected.for_how_long(status.term, engine.id()) > FRESH;
    if status.role == Role::Leader {
        let (level, max) = (status.feature_level, status.feature_level_max);
        alarms.extend(held_down(level, max, &status.members, heard_out));
    }
    alarms
}

fn of_member(member: &Member) -> Vec<String> {
    let id = member.id;
    let disk = member.disk.filter(|disk| disk.nearly_full).map(|disk| {
        let (free, reserve) = (disk.free_bytes >> 20, disk.reserve_bytes >> 20);
        format!(
            "the disk of node {id} is nearly full: {free} MiB are free, {reserve} MiB are kept in reserve"
        )
    });
    let silent = member.last_contact_ms.filter(|ms| *ms > SILENT_MS);
    let silent = silent.map(|ms| format!("node {id} has not answered for {} s", ms / 1000));
    disk.into_iter().chain(silent).collect()
}

/// Who keeps the feature level of the cluster below `max`, which the leader's release knows, and what to do about each. Of
/// one that said nothing that is told once the leader has `heard_out` all.
fn held_down(level: u32, max: u32, members: &[Member], heard_out: bool) -> Option<String> {
    if level >= max {
        return None;
    }
    let holder = |member: &Member| {
        let id = member.id;
        match member.feature_level_max {
            Some(known) if known >= max => None,
            Some(known) => Some(format!("node {id} knows {known} (upgrade it)")),
            None if member.http_url.is_empty() => Some(format!(
                "a place is kept for node {id}, which has not come (start it, or let go of it by \
                 `onward cluster remove {id}`)"
            )),
            None => heard_out.then(|| {
                format!("node {id} does not say what it knows (start it, upgrade it, or remove it for good)")
            }),
        }
    };
    let holders: Vec<String> = members.iter().filter_map(holder).collect();
    (!holders.is_empty()).then(|| {
        format!(
            "the feature level stays at {level}, while this release knows {max}: {}",
            holders.join("; ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use onward_statemachine::NodeId;

    /// A member that knows this level, or has not said; without a URL the place of one that has not come.
    fn member(id: u64, http_url: &str, feature_level_max: Option<u32>) -> Member {
        Member {
            id: NodeId(id),
            peer_address: String::new(),
            http_url: http_url.to_owned(),
            voter: true,
            matched: None,
            last_contact_ms: None,
            disk: None,
            feature_level_max,
        }
    }

    const URL: &str = "http://10.0.0.1:7400";

    #[test]
    fn who_holds_the_feature_level_down_is_named() {
        let members = [
            member(1, URL, Some(3)),
            member(2, URL, Some(2)),
            member(3, URL, None),
            member(4, "", None),
            member(5, URL, Some(4)),
        ];
        let alarm = held_down(2, 3, &members, true).expect("an alarm");
        for part in [
            "stays at 2, while this release knows 3: node 2 knows 2 (upgrade it); node 3 does not say",
            "a place is kept for node 4",
            "onward cluster remove 4",
        ] {
            assert!(alarm.contains(part), "`{part}` is not in: {alarm}");
        }
        assert!(!alarm.contains("node 1") && !alarm.contains("node 5"), "{alarm}");
        let early = held_down(2, 3, &members, false).expect("an alarm");
        assert!(!early.contains("node 3"), "it may say so yet: {early}");
    }

    #[test]
    fn a_level_that_nobody_holds_down_is_no_alarm() {
        let members = [member(1, URL, Some(3)), member(4, "", None)];
        let highest = held_down(3, 3, &members, true);
        assert_eq!(highest, None, "it is as high as it gets");
        let all_know = [member(1, URL, Some(3)), member(2, URL, Some(3))];
        assert_eq!(held_down(2, 3, &all_know, true), None, "it is about to rise");
    }
}
