{{/* All names are made here. 50 characters leave room for the suffixes of Jobs, CronJobs and Pods. A longer name is cut,
and ends in a hash of the whole name: two long releases must not share objects. */}}
{{- define "finetune.fitted" -}}
{{- if gt (len .) 50 -}}
{{- printf "%s-%s" (trunc 41 . | trimSuffix "-") (sha256sum . | trunc 8) -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end }}

{{- define "finetune.name" -}}
{{- include "finetune.fitted" (.Values.nameOverride | default .Chart.Name | trimSuffix "-") -}}
{{- end }}

{{- define "finetune.fullname" -}}
{{- $name := include "finetune.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- include "finetune.fitted" (.Values.fullnameOverride | trimSuffix "-") -}}
{{- else if contains $name .Release.Name -}}
{{- include "finetune.fitted" .Release.Name -}}
{{- else -}}
{{- include "finetune.fitted" (printf "%s-%s" .Release.Name $name) -}}
{{- end -}}
{{- end }}

{{/* True unless serviceAccount.create is false. */}}
{{- define "finetune.makesServiceAccount" -}}
{{- if ne (toJson (.Values.serviceAccount).create) "false" }}true{{ end -}}
{{- end }}

{{- define "finetune.serviceAccountName" -}}
{{- if include "finetune.makesServiceAccount" . -}}
{{- (.Values.serviceAccount).name | default (include "finetune.fullname" .) -}}
{{- else -}}
{{- (.Values.serviceAccount).name | default "default" -}}
{{- end -}}
{{- end }}

{{- define "finetune.jobName" -}}
{{- printf "%s-%s" (include "finetune.fullname" .) (include "finetune.hash" .) -}}
{{- end }}

{{/* Of the CronJob of cronjob.plan and its account: Kubernetes allows a CronJob 52 characters. */}}
{{- define "finetune.planName" -}}
{{- $name := include "finetune.fullname" . -}}
{{- if gt (len $name) 47 -}}
{{- printf "%s-%s-plan" (trunc 38 $name | trimSuffix "-") (sha256sum $name | trunc 8) -}}
{{- else -}}
{{- printf "%s-plan" $name -}}
{{- end -}}
{{- end }}

{{/* Hash of the Pod template, which has the settings, and all other immutable fields of a Job: a change creates a new Job, so that an
upgrade never fails with "field is immutable". Mutable fields (backoffLimit, the chart's version) are not part of it. */}}
{{- define "finetune.hash" -}}
{{- $queue := (.Values.kueue).queueName | default "" -}}
{{- printf "%s\n%s\n%s%s" (include "finetune.podTemplate" .) (include "finetune.podFailurePolicy" .) $queue (include "finetune.indexed" .) | sha256sum | trunc 8 -}}
{{- end }}

{{- define "finetune.selectorLabels" -}}
app.kubernetes.io/name: {{ include "finetune.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "finetune.labels" -}}
{{ include "finetune.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- include "finetune.strings" .Values.commonLabels }}
{{- end }}

{{/* A value as text. Numbers from a values file are floats to Helm, which prints them as 5.176135e+06; JSON does not. */}}
{{- define "finetune.text" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end }}

{{/* Labels, annotations: a map whose values must be strings. */}}
{{- define "finetune.strings" -}}
{{- range $key, $value := . }}
{{- if not (kindIs "invalid" $value) }}
{{ $key | quote }}: {{ include "finetune.text" $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Remove nulls, which are a user's way to drop a default, from a map in place. */}}
{{- define "finetune.dropNulls" -}}
{{- $map := . -}}
{{- range $key, $value := . -}}
{{- if kindIs "invalid" $value }}{{ $_ := unset $map $key }}
{{- else if kindIs "map" $value }}{{ include "finetune.dropNulls" $value }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "finetune.image" -}}
{{- $image := .Values.image | default dict -}}
{{- $repository := required "image.repository must be given: the image that the job runs" $image.repository -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (include "finetune.text" ($image.tag | default .Chart.AppVersion)) -}}
{{- end -}}
{{- end }}

{{- define "finetune.command" -}}
{{- .Values.command | default "run" -}}
{{- end }}

{{/* The number of GPUs that the Pod requests: only `run` needs any, and `doctor` checks what it needs. */}}
{{- define "finetune.gpus" -}}
{{- if has (include "finetune.command" .) (list "run" "doctor") }}{{ int (.Values.gpu).count }}{{ else }}0{{ end -}}
{{- end }}

{{/* The size of /dev/shm; nothing where it stays as it is: with one GPU, or where the values mount a volume there. */}}
{{- define "finetune.sharedMemory" -}}
{{- $mounted := dict -}}
{{- range .Values.extraVolumeMounts -}}
{{- if eq (trimSuffix "/" .mountPath) "/dev/shm" }}{{ $_ := set $mounted "yes" true }}{{ end -}}
{{- end -}}
{{- if and (gt (include "finetune.gpus" . | int) 1) (not $mounted) -}}
{{- include "finetune.text" ((.Values.gpu).sharedMemory | default "1Gi") -}}
{{- end -}}
{{- end }}

{{- define "finetune.gracePeriod" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- if .Values.spot }}15{{ else }}30{{ end -}}
{{- else -}}
{{- int .Values.terminationGracePeriodSeconds -}}
{{- end -}}
{{- end }}

{{/* A quantity such as 20Gi or 500m, in thousandths of its unit: bytes, or cores. */}}
{{- define "finetune.milli" -}}
{{- $text := include "finetune.text" . -}}
{{- $units := dict "m" 1 "k" 1000000 "M" 1000000000 "G" 1000000000000 "T" 1000000000000000 "Ki" 1024000 "Mi" 1048576000 "Gi" 1073741824000 "Ti" 1099511627776000 "" 1000 -}}
{{- $number := regexFind "^[0-9]*[.]?[0-9]+([eE][-+]?[0-9]+)?" $text -}}
{{- $unit := trimPrefix $number $text -}}
{{- if or (not $number) (not (hasKey $units $unit)) -}}
{{- fail (printf "%q is no quantity: expected a number with one of the units m, k, M, G, T, Ki, Mi, Gi, Ti, or none" $text) -}}
{{- end -}}
{{- mulf (float64 $number) (float64 (get $units $unit)) | int64 -}}
{{- end }}

{{- define "finetune.bytes" -}}
{{- div (include "finetune.milli" . | int64) 1000 -}}
{{- end }}

{{/* What the Pod may take of the node's disk. Unless it is given, it follows from the cache, so that the two agree. */}}
{{- define "finetune.ephemeralStorage" -}}
{{- $given := ((.Values.resources).limits | default dict) | dig "ephemeral-storage" nil -}}
{{- if not (kindIs "invalid" $given) -}}
{{- include "finetune.text" $given -}}
{{- else -}}
{{- $cache := 0 -}}
{{- if eq (include "finetune.cacheType" .) "emptyDir" }}{{ $cache = include "finetune.bytes" ((.Values.cache).sizeLimit | default "20Gi") | int64 }}{{ end -}}
{{- $bytes := add $cache (include "finetune.besideCacheBytes" .) -}}
{{- if eq (mod $bytes 1073741824) 0 }}{{ div $bytes 1073741824 }}Gi{{ else }}{{ $bytes }}{{ end -}}
{{- end -}}
{{- end }}

{{/* /tmp, the demo's output and the log: 5Gi. */}}
{{- define "finetune.besideCacheBytes" -}}5368709120{{- end }}

{{/* The bytes of the volume that the chart gives the cache; nothing where a claim has a size of its own. */}}
{{- define "finetune.cacheBytes" -}}
{{- $type := include "finetune.cacheType" . -}}
{{- $own := (.Values.cache).sizeLimit -}}
{{- if eq $type "emptyDir" -}}
{{- $limit := sub (include "finetune.bytes" (include "finetune.ephemeralStorage" .) | int64) (include "finetune.besideCacheBytes" . | int64) -}}
{{- if $own }}{{ min $limit (include "finetune.bytes" $own | int64) }}{{ else }}{{ $limit }}{{ end -}}
{{- else if and (eq $type "ephemeral") $own -}}
{{- include "finetune.bytes" $own -}}
{{- end -}}
{{- end }}

{{- define "finetune.cacheType" -}}
{{- (.Values.cache).type | default "emptyDir" -}}
{{- end }}

{{/* The settings file: config as given, and the defaults that follow from the chart's other values. */}}
{{- define "finetune.config" -}}
{{- $config := deepCopy (.Values.config | default dict) -}}
{{- $_ := include "finetune.dropNulls" $config -}}
{{- range list "output" "device" "cache" "events" -}}
{{- if not (hasKey $config .) }}{{ $_ := set $config . dict }}{{ end -}}
{{- end -}}
{{- if not $config.output.uri }}{{ $_ := set $config.output "uri" "/output" }}{{ end -}}
{{- if and (gt (include "finetune.gpus" . | int) 0) (not (hasKey $config.device "require_gpu")) }}{{ $_ := set $config.device "require_gpu" true }}{{ end -}}
{{- if not $config.cache.dir -}}
{{- $_ := set $config.cache "dir" "/cache" -}}
{{- $bytes := include "finetune.cacheBytes" . -}}
{{- if and $bytes (not (hasKey $config.cache "max_bytes")) -}}
{{- $_ := set $config.cache "max_bytes" (div (mul (int64 $bytes) 3) 4) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $config.events "enabled" (ternary true false (eq (include "finetune.events" .) "true")) -}}
{{- range $group, $settings := $config -}}
{{- if and (kindIs "map" $settings) (not $settings) }}{{ $_ := unset $config $group }}{{ end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end }}

{{- define "finetune.events" -}}
{{- if (.Values.events).enabled }}true{{ end -}}
{{- end }}

{{- define "finetune.imagePullPolicy" -}}
{{- with (.Values.image).pullPolicy }}
imagePullPolicy: {{ . | quote }}
{{- end }}
{{- end }}

{{/* The identity is a value. What Pod Security "restricted" requires is not: the job never needs more privileges. */}}
{{- define "finetune.podSecurityContext" -}}
{{- $context := deepCopy (.Values.podSecurityContext | default dict) -}}
{{- $_ := include "finetune.dropNulls" $context -}}
{{- if not $context.supplementalGroups }}{{ $_ := unset $context "supplementalGroups" }}{{ end -}}
{{- toYaml (merge (dict "runAsNonRoot" true "seccompProfile" (dict "type" "RuntimeDefault")) $context) -}}
{{- end }}

{{- define "finetune.securityContext" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
privileged: false
readOnlyRootFilesystem: true
{{- end }}

{{/* Of a container: {requests, limits, claims} without nulls, with the node's disk, and the GPU once, in the limits. */}}
{{- define "finetune.resources" -}}
{{- $resources := deepCopy (.resources | default dict) -}}
{{- $_ := include "finetune.dropNulls" $resources -}}
{{- $limits := $resources.limits | default dict -}}
{{- if .gpus }}{{ $_ := set $limits .gpuResource .gpus }}{{ end -}}
{{- if .ephemeralStorage -}}
{{- $_ := set $limits "ephemeral-storage" .ephemeralStorage -}}
{{- $requests := $resources.requests | default dict -}}
{{- if not (hasKey $requests "ephemeral-storage") }}{{ $_ := set $requests "ephemeral-storage" .ephemeralStorage }}{{ end -}}
{{- $_ := set $resources "requests" $requests -}}
{{- end -}}
{{- $_ := set $resources "limits" $limits -}}
{{- range $key, $value := $resources -}}
{{- if not $value }}{{ $_ := unset $resources $key }}{{ end -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end }}

{{/* Shared by the job's container and that of `helm test`, so that the test runs with the job's identity. */}}
{{- define "finetune.env" -}}
{{- with (.Values.googleCredentials).existingSecret }}
- name: GOOGLE_APPLICATION_CREDENTIALS
  value: /var/run/secrets/google/key.json
{{- end }}
{{- range .Values.extraEnv }}
{{- if and . (or (hasKey . "valueFrom") (not (hasKey . "value")) (not (kindIs "invalid" .value))) }}
- name: {{ .name | quote }}
  {{- if not (kindIs "invalid" .value) }}
  value: {{ include "finetune.text" .value | quote }}
  {{- end }}
  {{- with .valueFrom }}
  valueFrom: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "finetune.volumeMounts" -}}
- name: config
  mountPath: /etc/finetune
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- if not ((.Values.config).output).uri }}
- name: output
  mountPath: /output
{{- end }}
{{- with (.Values.googleCredentials).existingSecret }}
- name: google-credentials
  mountPath: /var/run/secrets/google
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The settings file is an annotation of the Pod itself, so that a Pod needs nothing beside it: an upgrade, a rollback or
a cleanup cannot take the settings away from a Job that is under way. */}}
{{- define "finetune.settingsAnnotation" -}}
finetune/config.yaml: |
  {{- include "finetune.config" . | nindent 2 }}
{{- end }}

{{- define "finetune.volumes" -}}
- name: config
  downwardAPI:
    items:
      - path: config.yaml
        fieldRef:
          fieldPath: metadata.annotations['finetune/config.yaml']
- name: tmp
  emptyDir:
    sizeLimit: 2Gi
{{- if not ((.Values.config).output).uri }}
- name: output
  emptyDir:
    sizeLimit: 2Gi
{{- end }}
{{- with (.Values.googleCredentials).existingSecret }}
- name: google-credentials
  secret:
    secretName: {{ . | quote }}
    items:
      - key: {{ ($.Values.googleCredentials).key | default "key.json" | quote }}
        path: key.json
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Of the CronJob that acts on the schedule: that of the plan, if there is one. */}}
{{- define "finetune.schedule" -}}
schedule: {{ .Values.cronjob.schedule | quote }}
{{- if not (kindIs "invalid" .Values.cronjob.suspend) }}
suspend: {{ .Values.cronjob.suspend }}
{{- end }}
{{- with .Values.cronjob.timeZone }}
timeZone: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "finetune.historyLimits" -}}
{{- $cronjob := .Values.cronjob -}}
successfulJobsHistoryLimit: {{ ternary 3 (int $cronjob.successfulJobsHistoryLimit) (kindIs "invalid" $cronjob.successfulJobsHistoryLimit) }}
failedJobsHistoryLimit: {{ ternary 3 (int $cronjob.failedJobsHistoryLimit) (kindIs "invalid" $cronjob.failedJobsHistoryLimit) }}
{{- end }}
