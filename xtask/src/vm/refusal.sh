# A kernel that is too old: the agent says so and which one is needed, and puts nothing on the link.
echo 'weir-vm: file refusal'
mkdir -p /var/lib/weir /run/weir
ip link add wan0 type dummy && ip link set wan0 up
cat > /tmp/weir.toml <<'END'
[device]
id = "gw-1"
[server]
url = "http://192.0.2.1:8080"
onboarding = "static"
allow_plaintext = true
[[link]]
name = "wan0"
subscriber = "imsi-001010000000001"
rating_group = 10
END
/weir/weir run --config /tmp/weir.toml > /tmp/said 2>&1 &
agent=$!
tries=0
until grep 'is too old' /tmp/said || [ $tries = 100 ]; do
    tries=$((tries + 1))
    sleep 0.3
done
if grep -q 'is too old' /tmp/said && grep -q 'Linux 5.12 or newer is needed' /tmp/said; then
    echo 'test the_agent_says_that_the_kernel_is_too_old_and_which_is_needed ... ok'
else
    cat /tmp/said
    echo 'test the_agent_says_that_the_kernel_is_too_old_and_which_is_needed ... FAILED'
    failed=1
fi
if [ -d /sys/fs/bpf/weir ] && [ -z "$(find /sys/fs/bpf/weir -type f)" ]; then
    echo 'test nothing_is_pinned_where_nothing_can_be_metered ... ok'
else
    find /sys/fs/bpf
    echo 'test nothing_is_pinned_where_nothing_can_be_metered ... FAILED'
    failed=1
fi
kill $agent
