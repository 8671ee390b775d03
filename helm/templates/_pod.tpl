{{/* The Pod template of Job and CronJob, with what podSpec adds to its spec. */}}
{{- define "finetune.podTemplate" -}}
{{- $template := include "finetune.ownPodTemplate" . -}}
{{- $rendered := (fromYaml $template).spec -}}
{{- $added := deepCopy (.Values.podSpec | default dict) -}}
{{- $_ := include "finetune.dropNulls" $added -}}
{{- range $key, $_ := $added -}}
{{- if hasKey $rendered $key -}}
{{- fail (printf "podSpec.%s: the chart renders this field itself. Remove it from podSpec, and use the chart's own value for it" $key) -}}
{{- end -}}
{{- if has $key (list "hostNetwork" "hostPID" "hostIPC") -}}
{{- fail (printf "podSpec.%s: Pod Security \"restricted\" does not admit it, and the job does not need it. Remove it" $key) -}}
{{- end -}}
{{- end -}}
{{- $template -}}
{{- with $added }}{{ toYaml . | nindent 2 }}{{ end -}}
{{- end }}

{{- define "finetune.ownPodTemplate" -}}
{{- $gpus := include "finetune.gpus" $ | int -}}
{{- $workers := include "finetune.workers" $ | int -}}
metadata:
  labels:
    {{- include "finetune.podLabels" (dict "root" $ "component" "job") | nindent 4 }}
  annotations:
    {{- include "finetune.podAnnotations" $ | nindent 4 }}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: {{ include "finetune.gracePeriod" $ }}
  serviceAccountName: {{ include "finetune.serviceAccountName" $ | quote }}
  # Only Events need the token.
  automountServiceAccountToken: {{ ternary true false (eq (include "finetune.events" $) "true") }}
  # A Service called finetune would add variables with the settings' prefix.
  enableServiceLinks: false
  {{- if gt $workers 1 }}
  subdomain: {{ include "finetune.workersName" $ | quote }}
  {{- end }}
  securityContext:
    {{- include "finetune.podSecurityContext" $ | nindent 4 }}
  {{- with $.Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $.Values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- with $.Values.runtimeClassName }}
  runtimeClassName: {{ . | quote }}
  {{- end }}
  {{- with include "finetune.placement" (dict "root" $ "isJob" true) | trim }}{{ nindent 2 . }}{{ end }}
  {{- with $.Values.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $.Values.extraInitContainers }}
  initContainers: {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: finetune
      image: {{ include "finetune.image" $ | quote }}
      {{- with include "finetune.imagePullPolicy" $ | trim }}{{ nindent 6 . }}{{ end }}
      args: [{{ include "finetune.command" $ }}, --config, /etc/finetune/config.yaml{{ range $.Values.arguments }}, {{ . | quote }}{{ end }}]
      env:
        - name: FINETUNE_RUN__JOB_UID
          valueFrom:
            fieldRef:
              fieldPath: metadata.labels['batch.kubernetes.io/controller-uid']
        - name: FINETUNE_RUN__JOB_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.labels['batch.kubernetes.io/job-name']
        - name: FINETUNE_RUN__NAMESPACE
          valueFrom:
            fieldRef:
              fieldPath: metadata.namespace
        - name: FINETUNE_RUN__NODE
          valueFrom:
            fieldRef:
              fieldPath: spec.nodeName
        - name: FINETUNE_RUN__IMAGE
          value: {{ include "finetune.image" $ | quote }}
        {{- if gt $workers 1 }}
        {{- include "finetune.workersEnv" $ | nindent 8 }}
        {{- end }}
        {{- if and (eq (include "finetune.cacheType" $) "emptyDir") (not (($.Values.config).cache).dir) }}
        - name: FINETUNE_CACHE__VOLUME_LIMIT_BYTES
          valueFrom:
            resourceFieldRef:
              resource: limits.ephemeral-storage
        {{- end }}
        {{- if include "finetune.events" $ }}
        - name: FINETUNE_EVENTS__POD_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        - name: FINETUNE_EVENTS__POD_UID
          valueFrom:
            fieldRef:
              fieldPath: metadata.uid
        {{- end }}
        {{- with include "finetune.env" $ | trim }}{{ nindent 8 . }}{{ end }}
      {{- with $.Values.envFrom }}
      envFrom: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with include "finetune.resources" (dict "resources" $.Values.resources "gpus" $gpus "gpuResource" (($.Values.gpu).resource | default "nvidia.com/gpu") "ephemeralStorage" (include "finetune.ephemeralStorage" $)) }}
      resources: {{- nindent 8 . }}
      {{- end }}
      {{- if gt $workers 1 }}
      ports:
        - name: workers
          containerPort: {{ include "finetune.workersPort" $ }}
          protocol: TCP
      {{- end }}
      securityContext:
        {{- include "finetune.securityContext" $ | nindent 8 }}
      terminationMessagePath: /dev/termination-log
      # If it is empty, as after an out-of-memory kill, Kubernetes shows the end of the log.
      terminationMessagePolicy: FallbackToLogsOnError
      volumeMounts:
        {{- include "finetune.volumeMounts" $ | nindent 8 }}
        - name: cache
          mountPath: /cache
        {{- if include "finetune.sharedMemory" $ }}
        - name: shared-memory
          mountPath: /dev/shm
        {{- end }}
  volumes:
    {{- include "finetune.volumes" . | nindent 4 }}
    - name: cache
      {{- include "finetune.cacheVolume" $ | nindent 6 }}
    {{- with include "finetune.sharedMemory" $ }}
    # The runtime's own /dev/shm has 64 MiB.
    - name: shared-memory
      emptyDir:
        medium: Memory
        sizeLimit: {{ . | quote }}
    {{- end }}
{{- end }}

{{/* Of the Pods of the job and of cronjob.plan. Takes root and the component. */}}
{{- define "finetune.podLabels" -}}
{{ include "finetune.selectorLabels" .root }}
app.kubernetes.io/component: {{ .component }}
{{- include "finetune.strings" (merge (deepCopy (.root.Values.podLabels | default dict)) (.root.Values.commonLabels | default dict)) }}
{{- end }}

{{- define "finetune.podAnnotations" -}}
kubectl.kubernetes.io/default-container: finetune
{{ include "finetune.settingsAnnotation" . }}
{{- include "finetune.strings" .Values.podAnnotations }}
{{- end }}

{{/* Which nodes a Pod may run on. Takes root, and whether it is the Pod of the job: that of `helm test` uses neither the GPU
nor the Spot nodes, and is admitted where the values send it. */}}
{{- define "finetune.placement" -}}
{{- $ := .root -}}
{{- $gpus := include "finetune.gpus" $ | int -}}
{{- $selector := dict -}}
{{- if and .isJob $gpus ($.Values.gpu).accelerator }}{{ $_ := set $selector "cloud.google.com/gke-accelerator" $.Values.gpu.accelerator }}{{ end -}}
{{- if and .isJob $.Values.spot }}{{ $_ := set $selector "cloud.google.com/gke-spot" "true" }}{{ end -}}
{{- with include "finetune.strings" (merge (deepCopy ($.Values.nodeSelector | default dict)) $selector) | trim }}
nodeSelector: {{- nindent 2 . }}
{{- end }}
{{- if or $gpus $.Values.spot $.Values.tolerations }}
tolerations:
  {{- if $gpus }}
  - key: nvidia.com/gpu
    operator: Exists
    effect: NoSchedule
  {{- end }}
  {{- if $.Values.spot }}
  - key: cloud.google.com/gke-spot
    operator: Equal
    value: "true"
    effect: NoSchedule
  {{- end }}
  {{- with $.Values.tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "finetune.cacheVolume" -}}
{{- $cache := .Values.cache | default dict -}}
{{- $type := include "finetune.cacheType" . -}}
{{- if eq $type "existingClaim" -}}
persistentVolumeClaim:
  claimName: {{ $cache.existingClaim | quote }}
{{- else if eq $type "ephemeral" -}}
ephemeral:
  volumeClaimTemplate:
    spec:
      accessModes: [ReadWriteOnce]
      {{- with $cache.storageClassName }}
      storageClassName: {{ . | quote }}
      {{- end }}
      resources:
        requests:
          storage: {{ include "finetune.text" $cache.sizeLimit | quote }}
{{- else if $cache.sizeLimit -}}
emptyDir:
  sizeLimit: {{ include "finetune.text" $cache.sizeLimit | quote }}
{{- else -}}
emptyDir: {}
{{- end -}}
{{- end }}

{{/* An ephemeral volume is kept as long as its Pod, and so as its Job. A Job outside of a CronJob has no default: once it is deleted,
GitOps and `helm upgrade` would create it again. */}}
{{- define "finetune.ttl" -}}
{{- if not (kindIs "invalid" (.Values.job).ttlSecondsAfterFinished) -}}
{{- int .Values.job.ttlSecondsAfterFinished -}}
{{- else if and (.Values.cronjob).enabled (eq (include "finetune.cacheType" .) "ephemeral") -}}
86400
{{- end -}}
{{- end }}

{{/* The Job's own spec. spec.suspend is never here: it belongs to a queue, and two writers of one field conflict. */}}
{{- define "finetune.jobSpec" -}}
{{ with include "finetune.indexed" . }}{{ trim . }}{{ else }}backoffLimit: {{ include "finetune.retries" . }}{{ end }}
{{- with (.Values.job).activeDeadlineSeconds }}
activeDeadlineSeconds: {{ int . }}
{{- end }}
{{- with include "finetune.ttl" . }}
ttlSecondsAfterFinished: {{ . }}
{{- end }}
# The only value accepted with podFailurePolicy: the new Pod is created after the old one has ended, not while it ends.
podReplacementPolicy: Failed
podFailurePolicy:
  {{- include "finetune.podFailurePolicy" . | nindent 2 }}
template:
  {{- include "finetune.podTemplate" . | nindent 2 }}
{{- end }}

{{- define "finetune.jobLabels" -}}
{{- include "finetune.labels" . }}
{{- with (.Values.kueue).queueName }}
kueue.x-k8s.io/queue-name: {{ . | quote }}
{{- end }}
{{- with (.Values.kueue).priorityClass }}
kueue.x-k8s.io/priority-class: {{ . | quote }}
{{- end }}
{{- with (.Values.kueue).maxExecTimeSeconds }}
kueue.x-k8s.io/max-exec-time-seconds: {{ int . | quote }}
{{- end }}
{{- include "finetune.strings" (.Values.job).labels }}
{{- end }}
