//! Machines: registered in bulk, addressed by the plan, booted by documents from the log.

use crate::support::Cluster;

const PLAN: &str = "kind: address_plan
index_offset: 3
machines_per_rack_max: 28
addresses_per_machine: 3
machines: {cidr: 10.69.0.0/16, offset: 0, range_bits: 6, mask_bits: 26, gateway_offset: 1}
bmcs: {cidr: 10.72.16.0/20, offset: 256, range_bits: 5, mask_bits: 20, gateway_offset: 1}
---
kind: machine
serial: S1
rack: 1
role: boot
macs: ['52:54:00:00:00:01']
labels: {zone: east}
---
kind: machine
serial: S2
rack: 1
role: worker
macs: ['52:54:00:00:00:02']
---
kind: boot_template
name: worker
makes: ipxe
body: |
  #!ipxe
  kernel {{ base_url }}/vmlinuz serial={{ serial }} rack={{ rack }}
  boot
selector: role=worker
";

#[test]
fn a_machine_gets_its_addresses_and_its_boot_script() {
    let cluster = Cluster::start(1);
    let file = cluster.dir.path().join("machines.yaml");
    std::fs::write(&file, PLAN).expect("writable");
    let file = file.to_str().expect("UTF-8");
    cluster.ok(&["apply", "-f", file]);
    let machine: serde_json::Value =
        serde_json::from_str(&cluster.ok(&["machine", "get", "S2", "-o", "json"])).expect("JSON");
    let text = machine.to_string();
    assert!(
        text.contains("10.69.0.196"),
        "rack 1, first slot after the boot server: {text}"
    );
    let url = format!("{}/boot/v1/ipxe", cluster.nodes[0].http);
    let ask = |query: [(&str, &str); 1]| {
        let answer = cluster.http.get(&url).query(&query).send().expect("an answer");
        (answer.status().as_u16(), answer.text().expect("text"))
    };
    for query in [[("serial", "S2")], [("mac", "52-54-00-00-00-02")]] {
        let (status, script) = ask(query);
        assert_eq!(status, 200, "{script}");
        assert!(
            script.starts_with("#!ipxe\n") && script.contains("serial=S2 rack=1"),
            "{script}"
        );
    }
    let (status, why) = ask([("serial", "nobody")]);
    assert!(status == 404 && why.contains("nobody"), "{status} {why}");
    let listed = cluster.ok(&["machine", "list", "-l", "role=worker", "-o", "json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed["items"].as_array().expect("items").len(), 1);
}
