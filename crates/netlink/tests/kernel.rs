//! The building blocks against the real kernel, in namespaces of the test's own.

use netlink::link::{NewKind, VethPeer};
use netlink::nft::{Family, Table};
use netlink::{Address, BridgeOptions, FdbEntry, LinkSet, Netns, NewLink, Route, link, nft, route};

/// True when the test can run; says why not, and fails where it was required.
fn capable() -> bool {
    // SAFETY is not needed: reading a file tells as much as geteuid.
    let root = std::fs::read_to_string("/proc/self/status").is_ok_and(|s| s.contains("CapEff:\t000001ff"));
    if root && Netns::scratch().is_ok() {
        return true;
    }
    let required = std::env::var("NUBO_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|r| matches!(r, "all" | "root" | "netns")), "requires root and namespaces");
    println!("SKIP needs root and network namespaces");
    false
}

struct Named(String);
impl Named {
    fn new(tag: &str) -> Named {
        Named(format!("nlt{}-{tag}", std::process::id()))
    }
}
impl Drop for Named {
    fn drop(&mut self) {
        let _ = Netns::delete(&self.0);
    }
}

#[test]
fn a_named_namespace_is_there_until_it_is_deleted_and_creating_it_again_opens_it() {
    if !capable() {
        return;
    }
    let name = Named::new("ns");
    assert!(Netns::open(&name.0).unwrap().is_none());
    let ns = Netns::create(&name.0).unwrap();
    assert_eq!(Netns::create(&name.0).unwrap().inode(), ns.inode());
    assert_eq!(Netns::list(&name.0).unwrap(), vec![name.0.clone()]);
    assert!(link::list(&ns).unwrap()["lo"].up);
    let shown = std::process::Command::new("ip").args(["-n", &name.0, "link", "show", "lo"]).output().unwrap();
    assert!(shown.status.success(), "ip sees it: {shown:?}");
    Netns::delete(&name.0).unwrap();
    Netns::delete(&name.0).unwrap();
    assert!(Netns::list(&name.0).unwrap().is_empty());
}

#[test]
fn links_addresses_routes_and_forwarding_entries_read_back_as_they_were_set() {
    if !capable() {
        return;
    }
    let (a, b) = (Netns::scratch().unwrap(), Netns::scratch().unwrap());
    let mac = netlink::mac("02:00:00:00:00:02").unwrap();
    let bridge = NewLink {
        name: "br0".into(),
        mac: Some(mac),
        mtu: Some(1450),
        kind: NewKind::Bridge(BridgeOptions { nf_call: true }),
    };
    link::create(&a, &bridge).unwrap();
    assert!(link::create(&a, &bridge).unwrap_err().exists());
    let peer = VethPeer { name: "eth0".into(), mac: None, mtu: Some(1450), namespace: b.clone() };
    let veth = NewLink { name: "v0".into(), mac: None, mtu: Some(1450), kind: NewKind::Veth { peer: Box::new(peer) } };
    link::create(&a, &veth).unwrap();
    let change = LinkSet {
        up: Some(true),
        alias: Some("nubo:test".into()),
        master: Some("br0".into()),
        learning: Some(false),
        flood: Some(false),
        ..Default::default()
    };
    link::set(&a, "v0", &change).unwrap();
    link::set(&a, "br0", &LinkSet { up: Some(true), ..Default::default() }).unwrap();
    let links = link::list(&a).unwrap();
    let (br0, v0) = (&links["br0"], &links["v0"]);
    assert_eq!((br0.mac, br0.mtu, br0.nf_call, br0.up), (Some(mac), 1450, Some(true), true));
    assert_eq!((v0.master, v0.learning, v0.flood), (Some(br0.index), Some(false), Some(false)));
    assert_eq!(v0.alias.as_deref(), Some("nubo:test"));
    assert!(link::list(&b).unwrap().contains_key("eth0"));

    let address = Address { link: "br0".into(), address: "10.0.0.2/24".parse().unwrap() };
    route::change_addresses(&a, &[], std::slice::from_ref(&address)).unwrap();
    assert!(route::addresses(&a).unwrap().contains(&address));
    let way =
        Route { to: "0.0.0.0/0".parse().unwrap(), via: Some("10.0.0.1".parse().unwrap()), link: Some("br0".into()) };
    route::change_routes(&a, &[], std::slice::from_ref(&way)).unwrap();
    assert_eq!(route::routes(&a, false).unwrap().into_iter().collect::<Vec<_>>(), vec![way.clone()]);
    assert_eq!(route::routes(&a, true).unwrap().len(), 2);
    let entry = FdbEntry { link: "v0".into(), mac: netlink::mac("02:00:00:00:00:11").unwrap() };
    route::change_fdb(&a, &[], std::slice::from_ref(&entry)).unwrap();
    assert_eq!(route::fdb(&a).unwrap().into_iter().collect::<Vec<_>>(), vec![entry.clone()]);
    route::change_fdb(&a, std::slice::from_ref(&entry), &[]).unwrap();
    route::change_fdb(&a, std::slice::from_ref(&entry), &[]).unwrap();
    route::change_routes(&a, std::slice::from_ref(&way), &[]).unwrap();
    route::change_addresses(&a, std::slice::from_ref(&address), &[]).unwrap();
    assert!(route::fdb(&a).unwrap().is_empty() && route::addresses(&a).unwrap().iter().all(|a| a.link == "lo"));
    link::delete(&a, "v0").unwrap();
    link::delete(&a, "v0").unwrap();
}

#[test]
fn a_table_equals_what_was_asked_for_until_somebody_changes_it_and_a_failure_leaves_the_old_rules() {
    if !capable() {
        return;
    }
    let ns = Netns::scratch().unwrap();
    let mut table = Table::new(Family::Inet, "nubo_t");
    table.base("forward", "type filter hook forward priority 0; policy drop;").rule("ip saddr @ok accept");
    table.set("ok", "ipv4_addr").elements.insert("10.0.0.1".into());
    nft::apply(&ns, &nft::script(None, &table)).unwrap();
    let ours = |_: &str, name: &str| name == "nubo_t";
    assert_eq!(nft::compare(&ns, &[&table], ours).unwrap(), Vec::<String>::new());
    let before = nft::listing(&ns).unwrap();
    assert!(nft::apply(&ns, "add rule inet nubo_t forward accept\nadd rule inet nubo_t nowhere accept\n").is_err());
    assert_eq!(nft::listing(&ns).unwrap(), before);
    nft::apply(&ns, "flush set inet nubo_t ok\n").unwrap();
    assert_eq!(nft::compare(&ns, &[&table], ours).unwrap(), ["missing inet nubo_t set ok: element 10.0.0.1"]);
    let mut next = table.clone();
    next.set("ok", "").elements.insert("10.0.0.2".into());
    next.chain("more").rule("drop");
    nft::apply(&ns, &nft::script(None, &table)).unwrap();
    nft::apply(&ns, &nft::script(Some(&table), &next)).unwrap();
    nft::apply(&ns, &nft::script(Some(&next), &table)).unwrap();
    assert_eq!(nft::compare(&ns, &[&table], ours).unwrap(), Vec::<String>::new());
}

#[test]
fn a_tap_stands_in_its_namespace_as_long_as_it_is_held() {
    if !capable() {
        return;
    }
    let ns = Netns::scratch().unwrap();
    let tap = netlink::open::tap(&ns, "tap0").unwrap();
    assert_eq!(link::list(&ns).unwrap()["tap0"].kind, netlink::LinkKind::Tun);
    drop(tap);
    assert!(!link::list(&ns).unwrap().contains_key("tap0"));
}
