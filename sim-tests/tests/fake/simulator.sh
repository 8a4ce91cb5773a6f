#!/bin/sh
# Stands in for a build with the simulator, so that the verbs that start processes can be tested in any build. Says what
# `run --json` would say; what becomes of a seed depends on the planted bug and on words in the scenario file.
set -eu

case "$1" in
planted)
    echo '[{"name":"early","about":"caught at seed 3"},{"name":"never","about":"not caught"},{"name":"crasher","about":"panics"}]'
    exit 0
    ;;
marks)
    echo '[{"name":"always_hit","about":"by every seed"},{"name":"hit_by_seed_5","about":"by one"}]'
    exit 0
    ;;
run) shift ;;
*)
    echo "error: no verb $1" >&2
    exit 2
    ;;
esac

scenario= seed= planted= history= report=
while [ $# -gt 0 ]; do
    case "$1" in
    --json) ;;
    --seed) seed=$2; shift ;;
    --planted) planted=$2; shift ;;
    --history) history=$2; shift ;;
    --report) report=$2; shift ;;
    *) scenario=$1 ;;
    esac
    shift
done

has() { [ -n "$scenario" ] && grep -q "$1" "$scenario"; }

fails=false
trace="000000000000000$((seed % 10))"
if has 'name = "refused"'; then
    echo '{"error":"the child refuses"}' >&2
    exit 2
fi
# Fails at every fourth seed.
if has 'name = "fourth"' && [ $((seed % 4)) = 0 ]; then fails=true; fi
# Runs differently in each process.
if has 'name = "wavering"'; then trace="$(printf '%016d' $$)"; fi
# Fails if a kill strikes while a trigger is asked for.
if has 'name = "needle"' && has 'fault = "kill"' && has 'do = "trigger"' && has 'tasks.needed'; then fails=true; fi
# Fails if a kill strikes while the log fills up.
fills() { has 'tasks.standing-load' || [ "$(grep -c 'workload.operations]]' "$scenario")" -ge 25 ]; }
if has 'name = "volume"' && has 'fault = "kill"' && fills; then fails=true; fi
# Fails under a single seed with what it draws, and under later ones if any fault strikes while the log fills up.
if has 'name = "accident"'; then
    if has 'tasks.standing-load'; then
        if [ "$seed" -ge 60 ] && { has 'swarm' || has 'fault = "'; }; then fails=true; fi
    elif [ "$seed" = 9 ] && { has 'swarm' || fills; }; then
        fails=true
    fi
fi
case "$planted" in
early) [ "$seed" -lt 3 ] || fails=true ;;
crasher)
    echo "thread 'main' panicked at nowhere.rs:1: planted" >&2
    exit 101
    ;;
esac

mark=0
[ "$seed" != 5 ] || mark=1
[ -z "$history" ] || echo '{}' > "$history"
[ -z "$report" ] || echo '<html>' > "$report"
if $fails; then
    held=false
    finding='{"name":"unique_fire","judgement":"violated","violations":[{"invariant":"unique_fire","t":1500000,"what":"fired twice"}]}'
else
    held=true
    finding='{"name":"unique_fire","judgement":"held","checked":7}'
fi
cat <<JSON
{"held":$held,"version":"0","source":"simulated","scenario":"fake","seed":$seed,"trace_hash":"$trace","simulated_ms":60000,
"real_ms":100,"nodes":3,"observed_ms":60000,"fired":1,"lapsed":{},"deliveries":1,
"operations":{"done":0,"refused":0,"unknown":0},"elections":1,"faults":{},
"marks":{"always_hit":2,"hit_by_seed_5":$mark},"findings":[$finding]}
JSON
$held || exit 1
