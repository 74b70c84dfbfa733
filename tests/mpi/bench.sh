#!/bin/sh
# Prints the records a second of one process alone and of worlds under mpirun, in turns, and their ratio to the former.
set -eu
mnist=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

speed() { # name, launcher and options
	name=$1
	shift
	"$@" --data synthetic --model "$work/model" --no-resume --epochs 3 --report "$work/report" >/dev/null
	awk -v name="$name" '/"images_per_second"/ { sub(/,/, "", $2); print name, $2 }' "$work/report" >>"$work/speeds"
}
mpirun="mpirun.openmpi --oversubscribe --bind-to none"
for round in 1 2 3 4 5; do
	speed alone "$mnist" train
	for transport in shared messages; do
		speed "$transport-2" $mpirun -n 2 "$mnist" train --transport $transport
		speed "$transport-2-server-trains" $mpirun -n 2 "$mnist" train --transport $transport --server-trains
	done
done
awk '{ if ($2 > best[$1]) best[$1] = $2 } END { for (name in best)
	printf "%-28s %9.0f images/s  %5.2f of one process\n", name, best[name], best[name] / best["alone"] }' "$work/speeds" | sort
