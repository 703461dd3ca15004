//! Refusals into codes: one exhaustive match an area, so that a new refusal does not compile without a code.

use super::{Code, EDGE};
use onward_statemachine::{Refusal, deployments, machines, membership, objects, services, system};

/// An area's refusals: the match, and the table of its codes.
macro_rules! area {
    ($of:ident, $table:ident, $refusal:ty { $($variant:ident => $status:literal $code:literal,)* }) => {
        pub(super) fn $of(refusal: &$refusal) -> Code {
            type Refused = $refusal;
            match refusal {
                $(Refused::$variant { .. } => Code::new($status, $code),)*
            }
        }
        const $table: &[Code] = &[$(Code::new($status, $code)),*];
    };
}

area!(system, SYSTEM, system::Refusal {
    FeatureLevelNotHigher => 409 "system_feature_level_not_higher",
    JournalFloor => 409 "system_journal_floor",
    CommandIdStale => 400 "command_id_stale",
    CommandIdVersion => 400 "command_id_version",
    BatchShape => 400 "batch_shape",
    FeatureLevelTooLow => 409 "system_feature_level_too_low",
    JournalAge => 400 "system_journal_age",
    JournalBytes => 400 "system_journal_bytes",
    JournalKept => 409 "system_journal_kept",
});

area!(change, MEMBERS, membership::ChangeRefusal {
    NotMember => 404 "member_not_found",
    LastVoter => 409 "member_last_voter",
    QuorumLost => 409 "member_quorum_lost",
    Joining => 409 "member_change_under_way",
    Voting => 409 "member_voters_changing",
    AddressTaken => 409 "member_address_taken",
    OtherCluster => 409 "member_other_cluster",
    NotVoter => 409 "member_not_voter",
    NoHeir => 409 "member_no_heir",
    Silent => 409 "member_silent",
    NotTakenOver => 409 "member_not_taken_over",
    Behind => 409 "member_behind",
});

area!(kv, KV, services::kv::Refusal {
    KeyLength => 400 "kv_key_length",
    ValueLength => 413 "kv_value_length",
    RevisionMismatch => 412 "kv_revision_mismatch",
    ExpectWithPrefix => 400 "kv_expect_with_prefix",
    TxnLength => 400 "kv_txn_length",
    DuplicateKey => 400 "kv_duplicate_key",
    DeleteTooWide => 400 "kv_delete_too_wide",
});

area!(catalog, CATALOG, services::catalog::Refusal {
    Name => 400 "catalog_name",
    NotFound => 404 "catalog_not_found",
    NoTtl => 409 "catalog_no_ttl",
    RevisionMismatch => 412 "catalog_revision_mismatch",
    Address => 400 "catalog_address",
    Port => 400 "catalog_port",
    TooMany => 400 "catalog_too_many",
    MetadataLength => 400 "catalog_metadata_length",
    Time => 400 "catalog_time",
    Duplicate => 400 "catalog_duplicate",
    BulkLength => 400 "catalog_bulk_length",
    ServiceFull => 409 "catalog_service_full",
});

area!(objects, OBJECTS, objects::Refusal {
    Conflict => 409 "objects_conflict",
    NotFound => 404 "objects_not_found",
    Duplicate => 400 "objects_duplicate",
    OidRange => 400 "objects_oid_range",
    ObjectLength => 413 "objects_object_length",
    Empty => 400 "objects_empty",
    PartLength => 400 "objects_part_length",
    OidCount => 400 "objects_oid_count",
    OidsExhausted => 409 "objects_oids_exhausted",
    TidsExhausted => 409 "objects_tids_exhausted",
});

area!(registry, REGISTRY, machines::registry::Refusal {
    RegisterLength => 400 "machine_register_length",
    Serial => 400 "machine_serial",
    Field => 400 "machine_field",
    LabelReserved => 400 "machine_label_reserved",
    TooManyLabels => 400 "machine_too_many_labels",
    TooManyMacs => 400 "machine_too_many_macs",
    MacNotUnicast => 400 "machine_mac_not_unicast",
    SerialTaken => 409 "machine_serial_taken",
    MacTaken => 409 "machine_mac_taken",
    AddressTaken => 409 "machine_address_taken",
    SlotTaken => 409 "machine_slot_taken",
    SlotOutside => 400 "machine_slot_outside",
    RackFull => 409 "machine_rack_full",
    RackOutsidePlan => 409 "machine_rack_outside_plan",
    NotFound => 404 "machine_not_found",
    RevisionMismatch => 412 "machine_revision_mismatch",
    Moved => 409 "machine_moved",
    RoleFixed => 409 "machine_role_fixed",
    Transition => 409 "machine_transition",
    NotRetired => 409 "machine_not_retired",
});

area!(ipam, IPAM, machines::ipam::Refusal {
    Unsound => 400 "address_plan_unsound",
    InUse => 409 "address_plan_in_use",
    RevisionMismatch => 412 "address_plan_revision_mismatch",
});

area!(netboot, NETBOOT, machines::netboot::Refusal {
    Name => 400 "boot_template_name",
    Selector => 400 "boot_template_selector",
    BodyLength => 400 "boot_template_body_length",
    TooMany => 409 "boot_template_too_many",
    NotFound => 404 "boot_template_not_found",
    RevisionMismatch => 412 "boot_template_revision_mismatch",
});

area!(apps, APPS, deployments::apps::Refusal {
    Name => 400 "app_name",
    NotFound => 404 "app_not_found",
    Deleting => 409 "app_deleting",
    RevisionMismatch => 412 "app_revision_mismatch",
    NotEmpty => 409 "app_not_empty",
    Repository => 400 "app_repository",
    Reference => 400 "app_reference",
    CommandText => 400 "app_command_text",
    EnvEntries => 400 "app_env_entries",
    EnvBytes => 400 "app_env_bytes",
    EnvName => 400 "app_env_name",
    EnvReserved => 400 "app_env_reserved",
    EnvValue => 400 "app_env_value",
    Routes => 400 "app_routes",
    RouteOfTcp => 400 "app_route_of_tcp",
    RouteOrder => 400 "app_route_order",
    RoutePath => 400 "app_route_path",
    Path => 400 "app_path",
    RouteTaken => 409 "app_route_taken",
    Time => 400 "app_time",
});

area!(builds, BUILDS, deployments::builds::Refusal {
    AppNotFound => 404 "build_app_not_found",
    NotFound => 404 "build_not_found",
    Commit => 400 "build_commit",
    Succeeded => 409 "build_succeeded",
    Stale => 409 "build_stale",
    Kept => 409 "build_kept",
});

area!(releases, RELEASES, deployments::releases::Refusal {
    Rollout => 409 "release_rollout",
    Build => 409 "release_build",
    Kept => 409 "release_kept",
});

area!(instances, INSTANCES, deployments::instances::Refusal {
    AppNotFound => 404 "rollout_app_not_found",
    AppStopped => 409 "rollout_app_stopped",
    AppRunning => 409 "rollout_app_running",
    Reference => 400 "rollout_reference",
    ReleaseNotFound => 404 "rollout_release_not_found",
    NoEarlierRelease => 409 "rollout_no_earlier_release",
    NoRelease => 409 "rollout_no_release",
    RouteTaken => 409 "rollout_route_taken",
    Busy => 409 "rollout_busy",
    NotActive => 409 "rollout_not_active",
    NotFound => 404 "rollout_not_found",
    Stale => 409 "rollout_stale",
    OutOfPlace => 409 "rollout_out_of_place",
    InstanceNotFound => 404 "rollout_instance_not_found",
    StillActive => 409 "rollout_still_active",
    Kept => 409 "rollout_kept",
});

/// The code of a refusal; of a batch, that of the command that was refused.
pub(super) fn of(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::Batch { refusal, .. } => of(refusal),
        Refusal::System(refusal) => system(refusal),
        Refusal::Kv(refusal) => kv(refusal),
        Refusal::Catalog(refusal) => catalog(refusal),
        Refusal::Registry(refusal) => registry(refusal),
        Refusal::Ipam(refusal) => ipam(refusal),
        Refusal::Netboot(refusal) => netboot(refusal),
        Refusal::Objects(refusal) => objects(refusal),
        Refusal::Apps(refusal) => apps(refusal),
        Refusal::Builds(refusal) => builds(refusal),
        Refusal::Releases(refusal) => releases(refusal),
        Refusal::Instances(refusal) => instances(refusal),
    }
}

/// Every code that the API answers with, those of the edge first.
pub fn table() -> Vec<Code> {
    [
        EDGE, SYSTEM, MEMBERS, KV, CATALOG, REGISTRY, IPAM, NETBOOT, OBJECTS, APPS, BUILDS, RELEASES,
        INSTANCES,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_unique_snake_case_and_hold_error_statuses() {
        let mut seen = BTreeSet::new();
        for Code { status, code } in table() {
            assert!(seen.insert(code), "{code} is there twice");
            assert!((400..600).contains(&status), "{code} has status {status}");
            assert!(
                code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{code} is not snake case"
            );
        }
    }
}
