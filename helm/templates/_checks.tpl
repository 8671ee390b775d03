{{/* Combinations of values that contradict each other. Each message has the value, the reason and the key to change. */}}
{{- define "finetune.check" -}}
{{- $config := .Values.config | default dict -}}
{{- $input := ($config.input).uri | default "" | toString | trimSuffix "/" -}}
{{- $output := ($config.output).uri | default "" | toString | trimSuffix "/" -}}
{{- $gpus := include "finetune.gpus" . | int -}}
{{- $cache := .Values.cache | default dict -}}
{{- $type := include "finetune.cacheType" . -}}
{{- $account := .Values.serviceAccount | default dict -}}
{{- $cronjob := .Values.cronjob | default dict -}}

{{- if and (has (include "finetune.command" .) (list "run" "doctor")) (eq $gpus 0) ($config.device).require_gpu (not (.Values.resources).claims) -}}
{{- fail "config.device.require_gpu is true and gpu.count is 0: the Pod would have no GPU and always exit with 4. Set gpu.count to 1 or more, or leave config.device.require_gpu out" -}}
{{- end -}}
{{- if and (eq (include "finetune.command" .) "run") $input (not $output) -}}
{{- fail (printf "config.output.uri must be given with config.input.uri=%s: the model would be lost with the Pod. Set config.output.uri to gs://BUCKET/PREFIX" $input) -}}
{{- end -}}
{{- if and (eq (include "finetune.command" .) "run") .Values.arguments -}}
{{- fail (printf "arguments=%s have no place in command=run: its settings stand under config, with the same names" (toJson .Values.arguments)) -}}
{{- end -}}
{{- if and (has (include "finetune.command" .) (list "predict" "evaluate" "verify")) (not .Values.arguments) -}}
{{- fail (printf "arguments must be given with command=%s: the run first, as in --set 'arguments={gs://BUCKET/MODELS/latest,…}'" (include "finetune.command" .)) -}}
{{- end -}}
{{- if and $input (hasPrefix (printf "%s/" $input) (printf "%s/" $output)) -}}
{{- fail (printf "config.output.uri=%s is inside config.input.uri=%s: the next run would read published files as data. Set config.output.uri to another prefix" $output $input) -}}
{{- end -}}
{{- range $key, $uri := dict "config.input.uri" $input "config.output.uri" $output -}}
{{- if and $uri (not (hasPrefix "gs://" $uri)) -}}
{{- $mounted := dict -}}
{{- range $.Values.extraVolumeMounts -}}
{{- if hasPrefix (printf "%s/" (trimSuffix "/" .mountPath)) (printf "%s/" $uri) }}{{ $_ := set $mounted "yes" true }}{{ end -}}
{{- end -}}
{{- if not $mounted -}}
{{- fail (printf "%s=%s is neither gs://BUCKET/PREFIX nor a path under one of extraVolumeMounts: the container's own file system is read-only and empty. Mount a volume there with extraVolumes and extraVolumeMounts, or set %s to gs://…" $key $uri $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if lt (include "finetune.gracePeriod" . | int) 15 -}}
{{- fail (printf "terminationGracePeriodSeconds=%s is below 15: the job needs up to 8 s from SIGTERM to save its state, and the kubelet needs some more. Leave terminationGracePeriodSeconds unset" (include "finetune.gracePeriod" .)) -}}
{{- end -}}
{{- if and (eq $type "existingClaim") (not $cache.existingClaim) -}}
{{- fail "cache.existingClaim must be given with cache.type=existingClaim: the name of a PersistentVolumeClaim in this namespace" -}}
{{- end -}}
{{- if and (ne $type "existingClaim") $cache.existingClaim -}}
{{- fail (printf "cache.existingClaim=%s has no effect with cache.type=%s. Set cache.type to existingClaim" $cache.existingClaim $type) -}}
{{- end -}}
{{- if and (ne $type "ephemeral") $cache.storageClassName -}}
{{- fail (printf "cache.storageClassName=%s has no effect with cache.type=%s. Set cache.type to ephemeral" $cache.storageClassName $type) -}}
{{- end -}}
{{- if and (eq $type "ephemeral") (not $cache.sizeLimit) -}}
{{- fail "cache.sizeLimit must be given with cache.type=ephemeral: the size of the volume, for example 100Gi" -}}
{{- end -}}
{{- $ephemeral := include "finetune.ephemeralStorage" . -}}
{{- $needed := include "finetune.besideCacheBytes" . | int64 -}}
{{- if and (eq $type "emptyDir") $cache.sizeLimit }}{{ $needed = add $needed (include "finetune.bytes" $cache.sizeLimit | int64) }}{{ end -}}
{{- if lt (include "finetune.bytes" $ephemeral | int64) $needed -}}
{{- fail (printf "resources.limits.ephemeral-storage=%s is less than %d bytes, those of the cache (cache.sizeLimit=%s) and 5Gi for /tmp and the log: the Pod would be evicted before the cache is full. Leave it unset, or lower cache.sizeLimit" $ephemeral $needed (include "finetune.text" ($cache.sizeLimit | default "unset"))) -}}
{{- end -}}
{{- $bytes := include "finetune.cacheBytes" . -}}
{{- if and $bytes ($config.cache).max_bytes (not ($config.cache).dir) -}}
{{- if gt (int64 $config.cache.max_bytes) (int64 $bytes) -}}
{{- fail (printf "config.cache.max_bytes=%d is more than the %s bytes of the volume (cache.sizeLimit=%s): the Pod would be evicted once the cache is full. Raise cache.sizeLimit, or leave config.cache.max_bytes out" (int64 $config.cache.max_bytes) $bytes (include "finetune.text" ($cache.sizeLimit | default "unset"))) -}}
{{- end -}}
{{- end -}}
{{- with ($config.cache).dir -}}
{{- $mounted := hasPrefix "/cache/" (printf "%s/" .) -}}
{{- range $.Values.extraVolumeMounts -}}
{{- if hasPrefix (printf "%s/" (trimSuffix "/" .mountPath)) (printf "%s/" $config.cache.dir) }}{{ $mounted = true }}{{ end -}}
{{- end -}}
{{- if not $mounted -}}
{{- fail (printf "config.cache.dir=%s is neither under /cache nor under one of extraVolumeMounts: the root is read-only, and /tmp has 2Gi, above which the Pod is evicted. Leave config.cache.dir out and set cache.sizeLimit" .) -}}
{{- end -}}
{{- end -}}
{{- range $name := list "cpu" "memory" "ephemeral-storage" -}}
{{- $request := ($.Values.resources).requests | default dict | dig $name nil -}}
{{- $limit := ($.Values.resources).limits | default dict | dig $name nil -}}
{{- if eq $name "ephemeral-storage" }}{{ $limit = $ephemeral }}{{ end -}}
{{- if not (or (kindIs "invalid" $request) (kindIs "invalid" $limit)) -}}
{{- if lt (include "finetune.milli" $limit | int64) (include "finetune.milli" $request | int64) -}}
{{- fail (printf "resources.limits.%s=%s is below resources.requests.%s=%s: Kubernetes would reject the Pod. Raise the limit, or lower the request" $name (include "finetune.text" $limit) $name (include "finetune.text" $request)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if gt $gpus 1 -}}
{{- if contains "/mig-" ((.Values.gpu).resource | default "") -}}
{{- fail (printf "gpu.count=%d with gpu.resource=%s: a process can use one MIG slice, and the others would be idle. Set gpu.count to 1" $gpus .Values.gpu.resource) -}}
{{- end -}}
{{- $memory := (.Values.resources).limits | default dict | dig "memory" nil -}}
{{- $shared := include "finetune.sharedMemory" . -}}
{{- if and $shared (not (kindIs "invalid" $memory)) -}}
{{- if lt (include "finetune.bytes" $memory | int64) (add (include "finetune.bytes" $shared | int64) 4294967296) -}}
{{- fail (printf "resources.limits.memory=%s leaves less than 4Gi beside gpu.sharedMemory=%s, which counts against it: the container would be killed. Raise resources.limits.memory, or lower gpu.sharedMemory" (include "finetune.text" $memory) $shared) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- include "finetune.checkWorkers" . -}}
{{- $repository := (.Values.image).repository | default "" | toString -}}
{{- if not (regexMatch "^([A-Za-z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$" $repository) -}}
{{- fail (printf "image.repository=%q is no name of an image: expected [REGISTRY[:PORT]/]NAME in lower case, without tag, digest or blanks. A tag belongs into image.tag, a digest into image.digest" $repository) -}}
{{- end -}}
{{- range $key := list "runAsNonRoot" "seccompProfile" -}}
{{- if hasKey ($.Values.podSecurityContext | default dict) $key -}}
{{- fail (printf "podSecurityContext.%s: the chart sets it itself, as Pod Security \"restricted\" requires. Remove it" $key) -}}
{{- end -}}
{{- end -}}
{{- $kueue := .Values.kueue | default dict -}}
{{- range $key, $label := dict "queueName" "kueue.x-k8s.io/queue-name" "priorityClass" "kueue.x-k8s.io/priority-class" "maxExecTimeSeconds" "kueue.x-k8s.io/max-exec-time-seconds" -}}
{{- if and (get $kueue $key) (hasKey (($.Values.job).labels | default dict) $label) -}}
{{- fail (printf "job.labels has %s, which kueue.%s=%s sets as well. Remove one of the two" $label $key (include "finetune.text" (get $kueue $key))) -}}
{{- end -}}
{{- end -}}
{{- if gt (len (include "finetune.config" .)) 204800 -}}
{{- fail (printf "config has %d bytes, and 204800 are allowed: Kubernetes limits a Pod's annotations to 256 KiB. Remove what has its default" (len (include "finetune.config" .))) -}}
{{- end -}}
{{- if and (include "finetune.events" .) (not (include "finetune.makesServiceAccount" .)) (not $account.name) -}}
{{- fail "serviceAccount.name must be given with serviceAccount.create=false while events.enabled is true: else every Pod of the namespace could create Events. Name an account, or set events.enabled to false" -}}
{{- end -}}
{{- if and (not (include "finetune.makesServiceAccount" .)) $account.annotations -}}
{{- fail "serviceAccount.annotations have no effect with serviceAccount.create=false: annotate the existing account itself, or set serviceAccount.create to true" -}}
{{- end -}}
{{- if and (eq (toJson $cronjob.suspend) "false") (not $cronjob.schedule) -}}
{{- fail "cronjob.suspend=false without cronjob.schedule: the CronJob has no time to start at. Set cronjob.schedule, or leave cronjob.suspend out" -}}
{{- end -}}
{{- if $cronjob.plan -}}
{{- if not (and $cronjob.enabled $cronjob.schedule) -}}
{{- fail "cronjob.plan=true without cronjob.enabled=true and cronjob.schedule: the plan has no time to start at. Set both, or cronjob.plan to false" -}}
{{- end -}}
{{- if ne (include "finetune.command" .) "run" -}}
{{- fail (printf "cronjob.plan=true with command=%s: a plan is that of a run. Set command to run, or cronjob.plan to false" (include "finetune.command" .)) -}}
{{- end -}}
{{- if not $input -}}
{{- fail "cronjob.plan=true without config.input.uri: the demo pictures never change. Set config.input.uri and config.output.uri, or cronjob.plan to false" -}}
{{- end -}}
{{- with $cronjob.planImage -}}
{{- if not (regexMatch "^([A-Za-z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9_.-]*(@sha256:[0-9a-f]{64})?|@sha256:[0-9a-f]{64})$" (toString .)) -}}
{{- fail (printf "cronjob.planImage=%q is no name of an image with tag or digest: expected [REGISTRY[:PORT]/]NAME:TAG or …@sha256:DIGEST" (toString .)) -}}
{{- end -}}
{{- end -}}
{{- else -}}
{{- range $key := list "planImage" "planServiceAccountAnnotations" "planNodeSelector" "planTolerations" -}}
{{- if get $cronjob $key -}}
{{- fail (printf "cronjob.%s=%s has no effect with cronjob.plan=false. Set cronjob.plan to true" $key (include "finetune.text" (get $cronjob $key))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $cronjob.schedule (not $cronjob.enabled) -}}
{{- fail (printf "cronjob.schedule=%q has no effect with cronjob.enabled=false. Set cronjob.enabled to true" $cronjob.schedule) -}}
{{- end -}}
{{- end }}

{{/* What several Pods of one run need, and what they cannot share. */}}
{{- define "finetune.checkWorkers" -}}
{{- $workers := include "finetune.workers" . | int -}}
{{- if gt $workers 1 -}}
{{- $config := .Values.config | default dict -}}
{{- if ne (include "finetune.command" .) "run" -}}
{{- fail (printf "workers=%d with command=%s: only command=run is distributed over several Pods. Set workers to 1" $workers (include "finetune.command" .)) -}}
{{- end -}}
{{- if not ($config.output).uri -}}
{{- fail (printf "config.output.uri must be given with workers=%d: all Pods of a run share its output. Set config.output.uri to gs://BUCKET/PREFIX" $workers) -}}
{{- end -}}
{{- if eq (include "finetune.cacheType" .) "existingClaim" -}}
{{- fail (printf "cache.type=existingClaim with workers=%d: each Pod needs a cache of its own. Set cache.type to emptyDir, or to ephemeral, which is a volume for each Pod" $workers) -}}
{{- end -}}
{{- with ($config.cache).dir -}}
{{- range $mount := $.Values.extraVolumeMounts -}}
{{- if hasPrefix (printf "%s/" (trimSuffix "/" $mount.mountPath)) (printf "%s/" $config.cache.dir) -}}
{{- range $volume := $.Values.extraVolumes -}}
{{- if and (eq $volume.name $mount.name) (not (or (hasKey $volume "emptyDir") (hasKey $volume "ephemeral"))) -}}
{{- fail (printf "config.cache.dir=%s is on the volume %s, which is shared by the Pods of workers=%d: each needs a cache of its own. Leave config.cache.dir out and set cache.sizeLimit" $config.cache.dir $volume.name $workers) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if hasKey (.Values.podSpec | default dict) "hostname" -}}
{{- fail (printf "podSpec.hostname with workers=%d: the Pods find each other by the hostnames that Kubernetes gives to them. Remove it" $workers) -}}
{{- end -}}
{{- end -}}
{{- end }}
