# The job's image: Python, the locked packages, the ImageNet weights, the project. Built for a GPU by default:
#
#     docker build --tag finetune:gpu .
#     docker build --tag finetune:cpu --build-arg ACCELERATOR=cpu .
#     docker build --tag finetune:gpu --build-arg EXPORTS=onnx .      # can export ONNX as well
#
# If the package index is behind a proxy with its own certificate, add --secret id=ca,src=BUNDLE.pem: the steps that
# download use it, and no layer contains it. A release passes BASE_IMAGE with a digest.

ARG BASE_IMAGE=python:3.13-slim-trixie

# Dependencies change rarely: in a stage of their own, so that a change of the sources does not install them again.
FROM ${BASE_IMAGE} AS dependencies
# For strip, which removes symbol tables. The last stage has no binutils.
RUN apt-get update -q && apt-get install -qy --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ONLY_BINARY=:all: PIP_ROOT_USER_ACTION=ignore

# pip and the build tools are in another environment: the job's contains only what the job needs.
RUN --mount=type=bind,source=requirements/build.txt,target=/mnt/build.txt \
    --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=ca \
    [ ! -e /run/secrets/ca ] || export PIP_CERT=/run/secrets/ca; \
    python3 -m venv /opt/build \
    && /opt/build/bin/pip install --quiet --require-hashes --requirement /mnt/build.txt \
    && python3 -m venv --without-pip /opt/finetune/venv

ARG ACCELERATOR=gpu
# EXPORTS=onnx adds the packages of `export.formats: onnx`, 100 MB. Its lock agrees with the other two.
ARG EXPORTS=
RUN --mount=type=bind,source=requirements,target=/mnt/requirements \
    --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=ca \
    [ ! -e /run/secrets/ca ] || export PIP_CERT=/run/secrets/ca; \
    for lock in ${ACCELERATOR} ${EXPORTS}; do \
        /opt/build/bin/pip --python /opt/finetune/venv/bin/python install --quiet --no-compile \
            --require-hashes --requirement /mnt/requirements/$lock.txt || exit; \
    done

# Remove what no run needs: input of compilers (headers, static libraries, libclang, libnvvm, nvrtc's second copies; XLA
# needs only ptxas and libdevice), CUDA libraries that TensorFlow does not use (cusolverMg is for several GPUs), the
# Kubernetes client for asyncio, the packages' own tests, type stubs, symbol tables. Metadata is kept for the bill of
# materials. Python files are compiled here, since a read-only container would compile them at each start.
# note: unchecked hashes and a fixed hash seed, so that two builds give the same bytes
RUN cd /opt/finetune/venv/lib/python3*/site-packages \
    && rm -rf tensorflow/include clang kubernetes/aio nvidia/*/include nvidia/cuda_nvcc/nvvm/lib64 \
        nvidia/cuda_nvrtc/lib/*.alt.so* nvidia/cublas/lib/libnvblas.so* nvidia/cufft/lib/libcufftw.so* \
        nvidia/cusolver/lib/libcusolverMg.so* \
    && find . \( -type d -name tests -o -name '*.pyi' -o -name '*.a' \) -prune -exec rm -rf {} + \
    && find . -name '*.so*' -type f -exec strip --strip-unneeded {} + \
    && PYTHONHASHSEED=0 /opt/finetune/venv/bin/python -m compileall -q -f --invalidation-mode unchecked-hash \
        /opt/finetune/venv/lib

# The remaining packages are complete, and can be imported.
RUN /opt/build/bin/pip --python /opt/finetune/venv/bin/python check \
    && TF_CPP_MIN_LOG_LEVEL=3 /opt/finetune/venv/bin/python -B -c "import keras, kubernetes, obstore, tensorflow" \
    && { [ "${EXPORTS}" != onnx ] || /opt/finetune/venv/bin/python -B -c "import onnxruntime, tf2onnx"; }

FROM dependencies AS build

# From the build context if it has them (WEIGHTS_FILE), else downloaded. The digest is checked in both cases.
ARG WEIGHTS_FILE=*.h5
COPY scripts/fetch_weights.py ${WEIGHTS_FILE} /mnt/weights/
RUN --mount=type=bind,source=job,target=/mnt/source/job \
    --mount=type=cache,target=/root/.keras/models \
    --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=ca \
    [ ! -e /run/secrets/ca ] || export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca; \
    for file in /mnt/weights/*.h5; do [ ! -e "$file" ] || cp "$file" /root/.keras/models/; done \
    && PYTHONPATH=/mnt/source:$(echo /opt/build/lib/python3*/site-packages) \
        /opt/finetune/venv/bin/python -B /mnt/weights/fetch_weights.py \
    && mkdir -p /opt/finetune/weights \
    && cp /root/.keras/models/*_1.0_224_no_top.h5 /opt/finetune/weights/

# The project, installed from its wheel under /opt/project, which the last stage copies over the dependencies.
RUN --mount=type=bind,source=.,target=/mnt/source,rw \
    cd /mnt/source \
    && /opt/build/bin/python -m hatchling build --target wheel --directory /tmp/wheel \
    && /opt/build/bin/pip --python /opt/finetune/venv/bin/python install --quiet --no-compile --no-deps --no-index \
        --root /opt/project --prefix /opt/finetune/venv /tmp/wheel/*.whl \
    && PYTHONHASHSEED=0 /opt/finetune/venv/bin/python -m compileall -q -f --invalidation-mode unchecked-hash \
        -s /opt/project -p / /opt/project

# The bill of materials, in CycloneDX, without time and serial number: the same contents give the same file.
RUN PYTHONPATH=$(echo /opt/project/opt/finetune/venv/lib/python3*/site-packages) \
    /opt/build/bin/cyclonedx-py environment --output-reproducible --no-validate \
        --output-file /opt/project/opt/finetune/sbom.cdx.json /opt/finetune/venv/bin/python

FROM ${BASE_IMAGE}
# No setuid files, and nothing is writable but /tmp and two mount points for volumes: a new volume inherits their owner.
# Group 0, since OpenShift chooses the user and keeps the group.
RUN find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
    && find / -xdev ! -type l -perm /022 ! -path /tmp -exec chmod go-w {} + \
    && install -d -o 65532 -g 0 -m 2775 /cache /output

COPY --from=dependencies /opt/finetune/venv /opt/finetune/venv
COPY --from=build /opt/finetune/weights /opt/finetune/weights
COPY --from=build /opt/project /

# HOME: an arbitrary user has none, and files that programs write there belong to no run.
# LD_LIBRARY_PATH: where GKE mounts the GPU driver; other clusters mount it in a default location.
ENV PATH=/opt/finetune/venv/bin:$PATH \
    HOME=/tmp \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib64 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

USER 65532:65532
# The build fails if the job cannot be imported or, for a GPU, if a CUDA library cannot be opened.
RUN ["python", "-B", "-c", "from job import pipeline; from job.runtime import gpu; broken = gpu.broken(); assert not broken, broken"]
ENTRYPOINT ["finetune"]
HEALTHCHECK NONE

ARG BASE_IMAGE
ARG SOURCE=
ARG REVISION=
ARG VERSION=
# Recorded in the provenance of each run.
ENV SOURCE_REVISION=${REVISION}
LABEL org.opencontainers.image.title="finetune" \
    org.opencontainers.image.description="Fine-tunes image classifiers from pictures in a bucket" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.base.name="${BASE_IMAGE}" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.version="${VERSION}"
