# A static rotad in an image of its own: no shell, no C library, no package manager.
#   docker build -t rotad --build-arg ROTAD_REVISION="$(git rev-parse HEAD)" .
#   docker run -v ./rotad.toml:/etc/rotad/rotad.toml:ro -v rotad-state:/var/lib/rotad rotad
# deploy/README.md says what to mount and which settings an image needs.

# The patch version comes from the tag, so that a rebuild brings its security fixes. With the base by its digest, two builds
# of one commit give the same files, byte by byte.
ARG BASE=docker.io/library/rust:1.95-bookworm
FROM ${BASE} AS build
WORKDIR /src
COPY . .
# The commit that is built: the context has no `.git` to ask.
ARG ROTAD_REVISION=unknown
# When every file of the image says that it was changed (seconds since 1970).
ARG SOURCE_DATE_EPOCH=0
# A target of its own keeps `crt-static` away from build scripts and procedural macros. glibc's static
# build resolves names through /etc/hosts and DNS without any shared library.
ENV RUSTFLAGS="-C target-feature=+crt-static"
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    host="$(rustc --print host-tuple)" && \
    cargo build --release --locked --no-default-features --target "$host" && \
    deploy/is-production "target/$host/release/rotad" && \
    install -D -m 0755 "target/$host/release/rotad" /image/usr/bin/rotad
# What a static program still looks for, and rotad's own directories.
RUN install -d -m 0755 /image/etc/ssl/certs /image/etc/rotad /image/run /image/var/lib && \
    install -d -m 0755 -o 65532 -g 65532 /image/run/rotad && \
    install -d -m 0700 -o 65532 -g 65532 /image/var/lib/rotad && \
    cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ && \
    echo 'rotad:x:65532:65532:rotad:/var/lib/rotad:/sbin/nologin' > /image/etc/passwd && \
    echo 'rotad:x:65532:' > /image/etc/group && \
    echo 'hosts: files dns' > /image/etc/nsswitch.conf && \
    find /image -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

FROM scratch
ARG ROTAD_REVISION=unknown
LABEL org.opencontainers.image.title="rotad" \
    org.opencontainers.image.description="Rotates the access tokens of MotherDuck service accounts without breaking a consumer" \
    org.opencontainers.image.licenses="MIT OR Apache-2.0" \
    org.opencontainers.image.version="0.1.0" \
    org.opencontainers.image.revision="${ROTAD_REVISION}"
COPY --from=build /image/ /
# By number, so that `runAsNonRoot` of Kubernetes can see that it is not root.
USER 65532:65532
WORKDIR /var/lib/rotad
ENV ROTAD_CONFIG=/etc/rotad/rotad.toml
EXPOSE 9643
# The start-up of a large fleet takes seconds.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["/usr/bin/rotad", "healthcheck"]
ENTRYPOINT ["/usr/bin/rotad"]
CMD ["run"]
