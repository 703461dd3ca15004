use super::*;

#[test]
fn a_seed_repeats_byte_for_byte() {
    let watched = Plan::of(4);
    assert!(
        watched.watchers > 0 && watched.compacts && watched.transactions > 0,
        "{watched:?}"
    );
    for seed in [watched.seed, 15] {
        let (one, other) = (run(seed, true), run(seed, true));
        for (place, (line, again)) in one.trace.iter().zip(&other.trace).enumerate() {
            assert_eq!(line, again, "seed {seed}, line {place}");
        }
        assert_eq!(one.trace.len(), other.trace.len());
    }
}

#[test]
fn seeds_stand_for_different_sites_and_all_faults() {
    let plans: Vec<Plan> = (0..200).map(Plan::of).collect();
    for kind in swarm::Kind::ALL {
        assert!(plans.iter().any(|plan| plan.faults.contains(&kind)), "{kind:?}");
        assert!(plans.iter().any(|plan| !plan.faults.contains(&kind)), "{kind:?}");
    }
    for machines in [3, 5] {
        assert!(plans.iter().any(|plan| plan.machines == machines));
    }
}

#[test]
fn seeds_find_nothing_wrong_and_see_much() {
    let mut answered = 0;
    for seed in 1..=10 {
        let ran = run(seed, false);
        let failed: Vec<_> = ran
            .verdicts
            .iter()
            .filter(|v| v.finding != Finding::Pass)
            .collect();
        assert!(failed.is_empty(), "seed {seed}: {failed:#?}");
        answered += ran.answered;
    }
    assert!(answered > 500, "{answered}");
}
