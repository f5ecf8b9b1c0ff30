#!/usr/bin/env bash
# Puts PostgreSQL 14, 16, 17 and 18 into the directory given (default: .deps/postgres in
# the project's root), one directory per version, from the npm packages that package.json
# names and package-lock.json pins.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
to=${1:-$here/../../../.deps/postgres}
new=$to.new
rm -rf "$new"
mkdir -p "$new"
cp "$here/package.json" "$here/package-lock.json" "$new/"
npm ci --prefix "$new" --ignore-scripts --no-audit --no-fund --loglevel=error
for package in "$new"/node_modules/pg*; do
  # npm packages hold no symbolic links; a list beside the files says which there were.
  node -e '
    const fs = require("fs"), path = require("path"), root = process.argv[1];
    for (const l of JSON.parse(fs.readFileSync(path.join(root, "native/pg-symlinks.json")))) {
      const link = path.join(root, l.target);
      fs.rmSync(link, { force: true });
      fs.symlinkSync(path.relative(path.dirname(link), path.join(root, l.source)), link);
    }' "$package"
  chmod -R a+rX "$package/native"
  chmod a+x "$package"/native/bin/*
  mv "$package/native" "$new/${package##*/pg}"
done
rm -rf "$new/node_modules" "$new/package.json" "$new/package-lock.json"
rm -rf "$to"
mv "$new" "$to"
