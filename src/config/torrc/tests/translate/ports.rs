//! `[proxy]`.

use super::*;

#[test]
fn without_a_socks_port_line_the_default_of_c_tor_applies() {
    assert_eq!(read_toml(""), "[proxy]\nsocks_port = [\"9050\"]\n");
    assert_gives("SocksPort 0", "proxy.socks_port = ['0']");
    assert_eq!(read_good("").origin("proxy.socks_port"), None);
}

#[test]
fn port_lines_are_copied_unchanged() {
    assert_gives(
        "SocksPort 9050 IsolateDestPort\n__SocksPort \"unix:/a ExtendedErrors\"\n\
         HTTPTunnelPort 8118\nTransPort 9040\nTransProxyType tproxy\nDNSPort 127.0.0.1:53 NoIPv6Traffic",
        "[proxy]\n\
         socks_port = ['9050 IsolateDestPort', 'unix:/a ExtendedErrors']\n\
         http_port = ['8118']\ntrans_port = ['9040']\ntrans_proxy_type = 'TPROXY'\n\
         dns_port = ['127.0.0.1:53 NoIPv6Traffic']",
    );
}

#[test]
fn unix_socks_group_writable_applies_to_all_unix_socks_ports() {
    assert_gives(
        "UnixSocksGroupWritable 1\nSocksPort unix:/a\nSocksPort unix:\"/b c\" RelaxDirModeCheck\n\
         SocksPort unix:/d nogroupwritable\nSocksPort 9050",
        "proxy.socks_port = ['unix:/a GroupWritable', \
         'unix:\"/b c\" RelaxDirModeCheck GroupWritable', 'unix:/d nogroupwritable', '9050']",
    );
}

#[test]
fn options_about_requests_become_keys_of_the_proxy_table() {
    assert_gives(
        "SocksTimeout 2 minutes\nSocksPolicy accept 192.168.0.0/16, accept6 [::1]\nSocksPolicy reject *\n\
         SafeSocks 1\nTestSocks 0\nWarnPlaintextPorts 23, 80\nRejectPlaintextPorts 25\n\
         MapAddress  a.example   b.example\nAutomapHostsOnResolve 1\nAutomapHostsSuffixes .exit,.onion\n\
         VirtualAddrNetworkIPv4 10.192.0.0/10\nVirtualAddrNetworkIPv6 [FC00::]/7",
        "[proxy]\nsocks_timeout = '120 s'\n\
         socks_policy = ['accept 192.168.0.0/16', 'accept6 [::1]', 'reject *']\n\
         safe_socks = true\ntest_socks = false\nwarn_plaintext_ports = [23, 80]\n\
         reject_plaintext_ports = [25]\nmap_address = ['a.example b.example']\n\
         automap_hosts_on_resolve = true\nautomap_hosts_suffixes = ['.exit', '.onion']\n\
         virtual_addr_network_ipv4 = '10.192.0.0/10'\nvirtual_addr_network_ipv6 = '[FC00::]/7'",
    );
    assert_gives("WarnPlaintextPorts\n", "proxy.warn_plaintext_ports = []");
    let policy = read_good("SocksPolicy accept 10.0.0.1,reject *\nSocksPolicy reject *");
    assert_eq!(policy.origin("proxy.socks_policy[1]").unwrap().line, 1);
    assert_eq!(policy.origin("proxy.socks_policy[2]").unwrap().line, 2);
}

#[test]
fn a_relative_key_folder_starts_at_the_working_directory() {
    let here = std::env::current_dir().unwrap();
    let torrc = read_good("ClientOnionAuthDir a$b/keys");
    let folder = torrc.table["proxy"]["client_onion_auth_dir"]
        .as_str()
        .unwrap();
    assert_eq!(folder, format!("{}/a$$b/keys", here.display()));
}
