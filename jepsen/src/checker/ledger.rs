//! Effects on the world, as the world wrote them down: each once, under its key, and only those that were asked for.

use super::{Findings, Violation};
use std::collections::{BTreeMap, BTreeSet};

/// Something that was done to the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// What may be done once: `app 7, rollout 3, start`.
    pub key: String,
    /// Who did it, and what else the ledger says, for people.
    pub note: String,
}

/// Whether all that is in `must` was done, nothing that is not in `may`, and nothing twice. What is in `must` need not
/// be in `may` as well.
pub fn check(ledger: &[Effect], must: &BTreeSet<String>, may: &BTreeSet<String>) -> Findings {
    let looked_at = format!("{} effects, of which {} had to be", ledger.len(), must.len());
    let mut findings = Findings::new(looked_at, ledger.len() + must.len());
    let mut report = |kind, summary| findings.violations.push(Violation::new(kind, summary, []));
    let mut done: BTreeMap<&str, &Effect> = BTreeMap::new();
    for effect in ledger {
        let Effect { key, note } = effect;
        if let Some(before) = done.insert(key, effect) {
            report("done-twice", format!("{key}: {}, and then {note}", before.note));
        }
        if !must.contains(key) && !may.contains(key) {
            report("not-asked-for", format!("{key}: {note}"));
        }
    }
    for key in must.iter().filter(|key| !done.contains_key(key.as_str())) {
        report("not-done", format!("{key} never took place"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Finding;

    #[test]
    fn each_effect_takes_place_once() {
        let ledger = |keys: &[&str]| -> Vec<Effect> {
            let effect = |key: &&str| Effect {
                key: (*key).to_owned(),
                note: "node 1".to_owned(),
            };
            keys.iter().map(effect).collect()
        };
        let set = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
        let judge = |keys: &[&str]| check(&ledger(keys), &set(&["a", "b"]), &set(&["c"]));
        assert_eq!(judge(&["a", "b"]).finding(), Finding::Pass);
        assert_eq!(judge(&["b", "c", "a"]).finding(), Finding::Pass);
        assert_eq!(judge(&["a", "b", "a"]).kinds(), ["done-twice"]);
        assert_eq!(judge(&["a"]).kinds(), ["not-done"]);
        assert_eq!(judge(&["a", "b", "d"]).kinds(), ["not-asked-for"]);
        assert_eq!(check(&[], &set(&[]), &set(&["c"])).finding(), Finding::Unknown);
    }
}
