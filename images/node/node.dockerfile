# A node of a kind cluster: Debian with systemd, containerd and kubelet, as kind expects of its own image.
# https://kind.sigs.k8s.io/docs/design/node-image/
ARG BASE
FROM ${BASE}
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update -qq && apt-get install -qq --no-install-recommends \
        systemd systemd-sysv containerd runc containernetworking-plugins iptables conntrack ethtool iproute2 kmod \
        procps util-linux mount jq socat >/dev/null && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* && \
    find /lib/systemd/system /etc/systemd/system -path '*.wants/*' -delete && \
    mkdir -p /opt/cni /kind/manifests /etc/systemd/system/multi-user.target.wants && \
    ln -s /usr/lib/cni /opt/cni/bin
COPY kubeadm kubelet kubectl /usr/bin/
COPY entrypoint pod-network create-kubelet-cgroup /usr/local/bin/
COPY kubelet.service pod-network.service /etc/systemd/system/
COPY containerd.toml /etc/containerd/config.toml
COPY default-cni.yaml default-storage.yaml /kind/manifests/
COPY version /kind/version
RUN chmod 0755 /usr/bin/kube* /usr/local/bin/* && \
    systemctl enable containerd.service kubelet.service pod-network.service && \
    ln -sf /lib/systemd/system/multi-user.target /etc/systemd/system/default.target && \
    printf 'nameserver 192.0.2.1\n' >/kind/resolv.conf
ENV container=docker PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
STOPSIGNAL SIGRTMIN+3
ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]
