#!/usr/bin/env bash
# Fetches the page's waveform library from npm, at the version that is committed; run it to check or to update.
set -euo pipefail
version=8.0.1
page="$(cd "$(dirname "$0")/../src/vermilion/server/page" && pwd)"
cd "$(mktemp -d)"
tar xzf "$(npm pack --silent "wavesurfer.js@$version")"
cp package/dist/wavesurfer.esm.js "$page/wavesurfer.esm.js"
cp package/LICENSE "$page/wavesurfer.LICENSE.txt"
echo "wavesurfer.js $version"
