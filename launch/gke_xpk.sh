#!/usr/bin/env bash
# Train on TPUs of Google Kubernetes Engine through xpk (pip install xpk; needs gcloud, kubectl and docker):
#   launch/gke_xpk.sh cluster                              make the cluster, or bring it to this size
#   launch/gke_xpk.sh train CONFIG --workdir DIR [...]     train on it, and wait for the end
#
# GKE starts all pods again when Spot machines are taken away, a process crashes or the watchdog ends it (MAX_RESTARTS times);
# training goes on from the checkpoint in DIR, which must lie on a STORAGE that xpk knows (xpk storage attach ...).
set -euo pipefail

CLUSTER=${CLUSTER:-biomedclip}
WORKLOAD=${WORKLOAD:-biomedclip}
PROJECT=${PROJECT:-$(gcloud config get-value project 2>/dev/null)}
ZONE=${ZONE:-us-central1-a}
TYPE=${TYPE:-v5litepod-16}
SLICES=${SLICES:-1}
SPOT=${SPOT:-1}                   # 1: cheaper, and may be taken away; 0: on demand
STORAGE=${STORAGE:-}              # names of xpk storages, separated by blanks
IMAGE=${IMAGE:-}                  # an image with biomedclip in it; empty: BASE_IMAGE and the files of this folder
BASE_IMAGE=${BASE_IMAGE:-python:3.12}
MAX_RESTARTS=${MAX_RESTARTS:-50}  # of the pods of a workload
ATTEMPTS=${ATTEMPTS:-3}           # how many times to make the workload anew when its restarts are used up
GRACE_SECONDS=${GRACE_SECONDS:-300} # to save in, between SIGTERM and the end
BIOMEDCLIP=${BIOMEDCLIP:-biomedclip}

place=("--cluster=$CLUSTER" "--project=$PROJECT" "--zone=$ZONE")
run() {
    echo "+ $*" >&2
    "$@"
}

usage() {
    echo "usage: $0 cluster | $0 train CONFIG --workdir DIR [options of biomedclip train]" >&2
    exit 2
}

cluster() {
    local options=("--tpu-type=$TYPE" "--num-slices=$SLICES")
    if [ "$SPOT" = 1 ]; then options+=(--spot); else options+=(--on-demand); fi
    run xpk cluster create "${place[@]}" "${options[@]}"
}

create() { # the words of the training command
    local options=("--workload=$WORKLOAD" "--tpu-type=$TYPE" "--num-slices=$SLICES" "--max-restarts=$MAX_RESTARTS")
    options+=("--termination-grace-period-seconds=$GRACE_SECONDS")
    # xpk restarts after 42 and 127 to 255, so after 134, 137 and 143; 124 is the watchdog's. Not after 2: wrong input
    options+=(--restart-on-exit-codes=124)
    local name command
    for name in $STORAGE; do options+=("--storage=$name"); done
    command="exec $BIOMEDCLIP train$(printf ' %q' "$@")"
    if [ -n "$IMAGE" ]; then
        options+=("--docker-image=$IMAGE")
    else
        options+=("--base-docker-image=$BASE_IMAGE" "--script-dir=$(cd "$(dirname "$0")/.." && pwd)")
        command="pip install --quiet -e '.[tpu]' && $command"
    fi
    run xpk workload create "${place[@]}" "${options[@]}" "--command=$command"
}

train() {
    local attempt code
    for ((attempt = 1; attempt <= ATTEMPTS; attempt++)); do
        create "$@"
        code=0
        run xpk workload list "${place[@]}" "--wait-for-job-completion=$WORKLOAD" || code=$?
        case $code in
            0) return ;;
            125) # it failed: xpk wants its name free before it is made again
                echo "$WORKLOAD has failed (attempt $attempt of $ATTEMPTS); its log:" >&2
                echo "  kubectl logs -l jobset.sigs.k8s.io/jobset-name=$WORKLOAD" >&2
                [ "$attempt" = "$ATTEMPTS" ] || run xpk workload delete "${place[@]}" "--workload=$WORKLOAD" --force
                ;;
            *) break ;; # xpk itself has trouble; the workload may be well
        esac
    done
    return "$code"
}

[ -n "$PROJECT" ] || { echo "$0: PROJECT is not set and gcloud has no default" >&2; exit 2; }
case ${1:-} in
    cluster) cluster ;;
    train)
        shift
        [ $# -ge 1 ] || usage
        train "$@"
        ;;
    *) usage ;;
esac
